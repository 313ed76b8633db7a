"""The installed mergekit and peft, made deterministic so that one can be equal to them.

Their sorts are not stable, so that which of equal magnitudes are kept is not defined; ``peers`` makes them stable (the
lowest index first) and has them take their random masks from given uniform draws. Nothing else in them is changed.
"""

import warnings
from contextlib import contextmanager
from unittest.mock import patch

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mergekit.merge_methods import merge_state_dicts
    from peft.utils import merge_utils as peft

__all__ = ["masks", "merge_state_dicts", "peers", "peft"]


def masks(tensors, members, draws):
    """Stands for ``torch.bernoulli`` as the peers call it: tensor by tensor, and for each member in turn."""
    order = iter([(name, tensor, member) for name, tensor in tensors.items() for member in members])

    def bernoulli(likely):
        name, tensor, member = next(order)
        return (draws(tensor, member, name).view_as(likely) < likely).to(likely.dtype)

    return bernoulli


@contextmanager
def peers(bernoulli):
    """Stable sorts, and these masks."""
    plain_argsort, plain_sort = torch.argsort, torch.sort

    def topk(magnitude, k, largest=True):
        assert largest
        found = plain_argsort(magnitude, descending=True, stable=True)[:k]
        return magnitude[found], found

    def argsort(*args, **options):
        return plain_argsort(*args, stable=True, **options)

    def sort(*args, **options):
        return plain_sort(*args, stable=True, **options)

    with (
        patch.object(torch, "argsort", argsort),
        patch.object(torch, "sort", sort),
        patch.object(torch, "topk", topk),
        patch.object(torch, "bernoulli", bernoulli),
    ):
        yield
