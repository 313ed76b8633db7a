"""Prompts that are asked several times."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd


def prompt_groups(prompts: pd.Series) -> np.ndarray:
    """A short name for each prompt [N], the same for the same text."""
    return np.array([hashlib.sha256(str(text).encode()).hexdigest()[:16] for text in prompts], dtype=object)
