"""Pools, splits and ingredients small enough that a method is built in milliseconds; what the laws run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from harness.evaluate.predictions import predict
from harness.methods.method import Method
from harness.models.architectures import build
from harness.models.training import Schedule, train
from harness.models.weights import ModelWeights, load_module, module_with
from harness.registry import METHODS
from harness.types import Architecture, Combination, Ingredients, Member, NotApplicable, Part, Pool, Split

CLASSES = 3
CNN = Architecture("small_cnn", (("classes", CLASSES), ("hidden", 6), ("side", 4), ("width", 2)))
CNN_BN = Architecture("small_cnn_bn", CNN.options)
MLP = Architecture("mlp", (("classes", CLASSES), ("hidden", 6), ("side", 4)))


@cache
@torch.inference_mode(False)  # whoever asks first, they are tensors that can be trained on
def split(name: str, count: int = 60) -> Split:
    """Three noisy patterns, one for each class; the same examples every time."""
    patterns = torch.randn(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    labels = torch.randint(CLASSES, (count,), generator=generator)
    inputs = patterns[labels] + 1.2 * torch.randn(count, 1, 4, 4, generator=generator)
    return Split(name, inputs, labels, [f"{name}-{i}" for i in range(count)], name)


@cache
@torch.inference_mode(False)
def trained(architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """Weights after a few epochs; callers must not change them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(architecture)
    train(module, split("train"), Schedule(60, 0.02, batch_size=20), seed=seed)
    return module.state_dict()


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own."""
    return {name: tensor.clone() for name, tensor in weights.items()}


def member(name: str, weights: Mapping[str, Tensor], architecture: Architecture = CNN, **changes: Any) -> Member:
    """A member with facts of its own; ``changes`` are fields of ``Member``."""
    given = {"start": "base", "seed": sum(map(ord, name)), "provenance": {}, "digest": name, **changes}
    return Member(name, architecture, copied(weights), **given)


def fine_tune(weights: Mapping[str, Tensor], architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """The weights after more training with another seed."""
    module = module_with(architecture, weights)
    train(module, split("train"), Schedule(2, 0.01, augment=0.2, batch_size=20), seed=seed)
    return module.state_dict()


@cache
@torch.inference_mode(False)
def tuned(architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """The first trained weights, fine-tuned; callers must not change them."""
    return fine_tune(trained(architecture, 0), architecture, seed)


def fine_tunes(count: int = 3, architecture: Architecture = CNN) -> Pool:
    """Members that share a base."""
    base = trained(architecture, 0)
    members = [member(f"m{k}", tuned(architecture, 100 + k), architecture) for k in range(count)]
    return Pool("main", "fine_tunes", tuple(members), member("base", base, architecture))


def independent(count: int = 3, architecture: Architecture = CNN) -> Pool:
    """Members with a start of their own each."""
    members = [member(f"i{k}", trained(architecture, k), architecture, start=f"start {k}") for k in range(count)]
    return Pool("independent", "independent", tuple(members))


def mixed() -> Pool:
    """Members of two architectures."""
    members = (member("cnn", trained(CNN, 0)), member("mlp", trained(MLP, 0), MLP, start="other"))
    return Pool("mixed", "architectures", members)


def bootstrap(count: int = 3) -> Pool:
    """Members trained on resamples, which their provenance names."""
    generator = torch.Generator().manual_seed(3)
    members = []
    for k, original in enumerate(independent(count).members):
        rows = torch.randint(60, (60,), generator=generator).tolist()
        members.append(replace(original, name=f"b{k}", digest=f"b{k}", provenance={"rows": rows}))
    return Pool("bagged", "bootstrap", tuple(members))


def checkpoints(count: int = 3) -> Pool:
    """One run's checkpoints, in time order."""
    members = [
        replace(original, name=f"c{k}", digest=f"c{k}", provenance={"epochs": k + 1})
        for k, original in enumerate(fine_tunes(count, CNN_BN).members)
    ]
    return Pool("run", "checkpoints", tuple(members))


_POOLS = {"any": fine_tunes, "bootstrap": bootstrap, "checkpoints": checkpoints}


def pool_for(method: Method, count: int = 3) -> Pool:
    """A pool of the kind that a method is about."""
    return _POOLS[method.pool](count)


class Weightless(ModelWeights):
    """The weights of a member that can be run, and is known by what it says alone."""

    def __init__(self, of: Member) -> None:
        self.of = of

    def module(self) -> nn.Module:
        return load_module(self.of)

    def _refuse(self, *_: Any) -> NoReturn:
        raise NotApplicable(f"{self.of.name} has no weights")

    __getitem__ = __iter__ = __len__ = __contains__ = _refuse


def copies(pool: Pool) -> Pool:
    """The first member as often as the pool has members, under their names."""
    first = pool.members[0]
    members = [
        replace(first, name=m.name, provenance=m.provenance, weights=copied(first.weights)) for m in pool.members
    ]
    return Pool(pool.name, pool.kind, tuple(members), pool.base)


def plain_predict(part: Part, examples: Split) -> Tensor:
    """What a part says of a split [N, C], computed anew."""
    return predict(part.log_probs, examples)


def ingredients(pool: Pool, needs: Sequence[str] = ("members", "base", "train", "heldout"), **changes: Any) -> Any:
    """Ingredients on the small splits."""
    given = {"train_": split("train"), "heldout_": split("heldout"), "predict": plain_predict, "seed": 5, **changes}
    return Ingredients(pool_=pool, needs=frozenset(needs), **given)


def built(method: Method, parameters: Mapping[str, Any], pool: Pool, **changes: Any) -> Combination:
    """A method on a pool, its parameters filled in."""
    return method.apply(ingredients(pool, tuple(method.needs), **changes), method.validate(parameters))


def build_method(name: str, pool: Pool, **parameters: Any) -> Combination:
    """A registered method on a pool, its parameters filled in."""
    return built(METHODS.get(name), parameters, pool)


def on_test(combination: Combination) -> Tensor:
    """What a combination says on the test split [N, C]."""
    return predict(combination.log_probs, split("test"))
