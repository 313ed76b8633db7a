"""Whether runs survive what befalls them: ``python -m tests.faults`` makes results/reference/faults.md."""
