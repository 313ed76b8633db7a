"""The balance of routers: what its loss is, and that training by it spreads the work over the experts."""

import pytest
import torch

from harness.evaluate.expert_use import use_of
from harness.merging.forms import form_of
from harness.merging.sparse_training import balanced, train_routers
from harness.models.forward import as_read_by, log_probs
from harness.models.weights import module_with
from tests.merging.decoders import fine_tunes, text


def mixture(k, router):
    pool = fine_tunes()
    form, models = form_of(pool.members[0].architecture), [each.weights for each in pool.members]
    module = module_with(form.sparse(3, k, 0.0), form.assemble(models, models, [router] * 2))
    return form, as_read_by("text", module)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("running", [None, 3], ids=["k", "all"])
def test_the_balance_loss_is_its_formula_whatever_runs(k, running):
    form, module = mixture(k, torch.randn(3, 16, generator=torch.Generator().manual_seed(1)))
    scores = []
    routers = form.routers(module)
    with balanced(form, module, 0.5):
        for router in routers:
            router.top_k = running or k
            router.register_forward_hook(lambda _, given, found: scores.append(found[0]))
        log_probs(module, text().inputs)
        total = sum(router.aux_loss.item() for router in routers)
    expected = 0.0
    for found in scores:
        shares = torch.softmax(found.double(), dim=-1)
        order = shares.argsort(dim=-1, descending=True)[:, :k]
        frequency = [float((order == expert).any(dim=-1).double().mean()) for expert in range(3)]
        means = shares.mean(dim=0).tolist()
        expected += 0.5 / len(scores) * 3 * sum(f * p for f, p in zip(frequency, means, strict=True))
    assert total == pytest.approx(expected, rel=1e-5)
    assert not any(hasattr(router, "aux_loss") for router in routers)


def loads(module):
    """Of all layers the share of tokens that each expert runs for."""
    inputs = text().inputs
    layers = use_of(module, [(inputs, torch.zeros(len(inputs), dtype=torch.int64))], ["all"])["layers"]
    return torch.tensor([layer["load"] for layer in layers.values()]).mean(dim=0).tolist()


def test_training_by_it_spreads_the_work_over_the_experts():
    form, module = mixture(1, torch.zeros(3, 16))  # equal scores: the first expert does everything
    before = loads(module)
    assert max(before) == 1
    train_routers(module, form, text(), steps=15, lr=0.02, balance=30.0, seed=0)
    after = loads(module)
    assert max(after) < 0.8
    assert sum(after) == pytest.approx(1)
    assert all(router.top_k == 1 for router in form.routers(module))
