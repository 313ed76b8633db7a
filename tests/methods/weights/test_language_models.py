"""Every merge on language models as they lie on disk: lazily read, tied weights once, token windows as examples."""

from dataclasses import replace

import pytest
import torch

from harness.checks.pools import ingredients, split
from harness.evaluate.predictions import predict
from harness.models.architectures import build
from harness.models.weights import LazyWeights, module_with, save_weights, without_ties
from harness.registry import METHODS
from harness.types import Architecture, Member, Pool

LLAMA = Architecture("tiny_llama", (("heads", 2), ("hidden", 16), ("layers", 1), ("vocab", 11)))
WINDOWS = torch.randint(11, (12, 6), generator=torch.Generator().manual_seed(0))
TEXT = replace(split("train"), inputs=WINDOWS, labels=WINDOWS[:, 1:].flatten(), batch=5, criterion="nll")
NAMES = ("slerp", "model_stock", "ema", "swa", "learned_soup", "fisher", "regmean")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Four language models near each other, the first of which is the base."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    start = build(LLAMA)
    found = []
    for k in range(4):
        module = module_with(LLAMA, start.state_dict())
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * k * torch.randn_like(parameter))
        save_weights(without_ties(module), folder / f"{k}.safetensors")
        weights = LazyWeights(folder / f"{k}.safetensors")
        found.append(Member(f"m{k}", LLAMA, weights, "base", k, {"epochs": k + 1}, f"m{k}"))
    return found


def built(name, members, base):
    method = METHODS.get(name)
    kind = "checkpoints" if method.pool == "checkpoints" else "fine_tunes"
    given = ingredients(Pool("text", kind, tuple(members), base), tuple(method.needs), train_=TEXT, heldout_=TEXT)
    return method.apply(given, method.validate({}))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_model_whose_embeddings_stay_tied(name, models):
    found = built(name, models[1:], models[0])
    state = found.module.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    log_probs = predict(found.log_probs, TEXT)
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(60))
    for single in models[1:]:
        assert any((state[n] - t).abs().max() > 1e-4 for n, t in single.weights.items())


@pytest.mark.parametrize("name", NAMES)
def test_copies_of_one_model_are_that_model(name, models):
    copies = [replace(models[1], name=m.name, provenance=m.provenance) for m in models[1:]]
    state = built(name, copies, models[0]).module.state_dict()
    for tensor_name, tensor in models[1].weights.items():
        torch.testing.assert_close(state[tensor_name], tensor, rtol=1e-5, atol=1e-6)
