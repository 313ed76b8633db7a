"""How many examples hypothesis draws: the same few at every `make test`, many and other ones at every `make fuzz`."""

import os
from typing import Any

from hypothesis import settings

FACTOR = {"fixed": 1, "fuzz": 20}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "fixed")

settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", max_examples=100 * FACTOR["fuzz"], deadline=None, print_blob=True)
settings.load_profile(PROFILE)


def examples(count: int, **others: Any) -> settings:
    """Draw ``count`` examples, times what the profile asks for; use it in place of ``hypothesis.settings``."""
    return settings(max_examples=FACTOR[PROFILE] * count, **others)
