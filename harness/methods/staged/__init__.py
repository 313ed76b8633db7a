"""Systems of stages: what runs for an example depends on what was said of it before."""
