"""The normal distribution and Student's t, to scipy.stats' digits, from the functions that it calls itself.

scipy.stats takes over a second to import, and looks 20 times as long at the shape and bounds of a number as it then
computes: reports and gates ask for thousands of numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special


def normal_density(x: np.ndarray) -> np.ndarray:
    """The density of the standard normal distribution."""
    return np.asarray(np.exp(-(x**2) / 2.0) / math.sqrt(2 * math.pi))


def normal_below(x: Any) -> Any:
    """Chance that a standard normal is at most ``x``."""
    return special.ndtr(x)


def normal_above(x: Any) -> Any:
    """Chance that a standard normal is more than ``x``."""
    return special.ndtr(np.negative(x))


def normal_quantile(above: Any) -> Any:
    """What a standard normal exceeds with this chance."""
    return 0.0 - special.ndtri(above)  # the quantile of a half is no -0


def student_above(x: Any, df: Any) -> Any:
    """Chance that Student's t of so many degrees of freedom is more than ``x``."""
    return special.stdtr(df, np.negative(x))


def student_quantile(above: Any, df: Any) -> Any:
    """What Student's t of so many degrees of freedom exceeds with this chance, below one."""
    found = 0.0 - special.stdtrit(df, above)
    return np.where(np.equal(above, 0), np.inf, found)[()]  # scipy has inf for the quantile of a chance of 0, too
