"""Stockpot: decide by evidence how to combine several models."""

__version__ = "0.1.0"
