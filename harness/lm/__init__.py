"""Combinations of causal language models: scored in one pass, generated from, and seen by lm-eval as one model."""
