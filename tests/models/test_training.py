"""Training: one seed for all that is random, the rows it is given, and a plain loop that says the same."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.checks.pools import CNN, CNN_BN, MLP, split
from harness.models.architectures import build
from harness.models.forward import as_read_by
from harness.models.training import Schedule, train
from harness.types import Architecture, Split

SCHEDULE = Schedule(2, 0.01, augment=0.3, batch_size=20)
NO_DROPOUT = Architecture("mlp", (*MLP.options, ("dropout", 0.0)))


def fresh(architecture=MLP, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture)


def trained(architecture=MLP, schedule=SCHEDULE, seed=1, examples=None, **options):
    module = fresh(architecture)
    train(module, examples or split("train"), schedule, seed=seed, **options)
    return module.state_dict()


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def is_nearly(one, other):
    return all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


@pytest.mark.parametrize("architecture", [MLP, CNN, CNN_BN], ids=lambda a: a.name)
def test_the_same_seed_gives_the_same_weights_whatever_state_the_global_generator_is_in(architecture):
    torch.manual_seed(5)
    first = trained(architecture)
    torch.manual_seed(6)
    assert same(trained(architecture), first)


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    trained()
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(ZeroDivisionError):
        train(fresh(), split("train"), SCHEDULE, seed=1, after_epoch=lambda _: 1 / 0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("architecture", "augment"), [(NO_DROPOUT, 0.0), (MLP, 0.0), (NO_DROPOUT, 0.3)], ids=["order", "dropout", "noise"]
)
def test_another_seed_gives_other_weights(architecture, augment):
    schedule = replace(SCHEDULE, augment=augment)
    assert not is_nearly(trained(architecture, schedule), trained(architecture, schedule, seed=2))


def test_it_is_a_plain_loop_of_adamw_with_a_linear_decay():
    schedule = Schedule(3, 0.01, batch_size=25, weight_decay=0.1)
    examples, module = split("train"), fresh(NO_DROPOUT)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1.0, weight_decay=0.1)
    step, steps = 0, 3 * 3  # batches of 25, 25 and 10
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for _ in range(3):
            order = torch.randperm(60)
            for rows in (order[:25], order[25:50], order[50:]):
                optimiser.param_groups[0]["lr"] = 0.01 * (1 - 0.95 * step / steps)
                optimiser.zero_grad()
                functional.cross_entropy(module(examples.inputs[rows]), examples.labels[rows]).backward()
                optimiser.step()
                step += 1
    found = trained(NO_DROPOUT, schedule)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [10, 70, 1000])
def test_one_cycle_is_torchs_and_a_constant_rate_stays(steps):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    rising = (0.3 * steps + 1) / (steps + 1)  # torch counts the steps from 1
    course = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps + 1, pct_start=rising)
    schedule, rates = Schedule(1, 2e-3, decay="cycle"), []
    for step in range(steps + 1):
        rates.append(course.get_last_lr()[0])
        assert schedule.lr * schedule.share(step / steps) == pytest.approx(rates[-1], abs=1e-3 * schedule.lr)
        optimiser.step()
        if step < steps:
            course.step()
    assert max(rates) == pytest.approx(schedule.lr, rel=1e-3)
    assert {Schedule(1, decay="constant").share(done / 10) for done in range(11)} == {1.0}


def test_the_course_of_the_rate_is_what_a_network_is_trained_with():
    """A cycle's first step is a 25th of that at a constant rate; AdamW's first step is the rate in every direction."""
    far = {}
    for decay in ("constant", "cycle"):
        start, schedule = fresh(NO_DROPOUT).state_dict(), Schedule(1, 0.01, batch_size=60, weight_decay=0, decay=decay)
        moved = trained(NO_DROPOUT, schedule)
        far[decay] = max(float((moved[name] - start[name]).abs().max()) for name in start)
    assert far == {"constant": pytest.approx(0.01, rel=1e-3), "cycle": pytest.approx(0.0004, rel=1e-2)}


def test_chosen_rows_are_trained_on_as_if_they_were_the_split():
    rows = [3, 3, 3, 10, 59, 0, 41, 41] * 3
    examples = split("train")
    made = Split("rows", examples.inputs[rows], examples.labels[rows], [str(r) for r in rows], "rows")
    found = trained(rows=rows)
    assert same(found, trained(examples=made))
    assert not is_nearly(found, trained())
    assert same(trained(rows=range(60)), trained())


def test_every_epoch_sees_every_chosen_row_once_in_a_new_order():
    seen = []

    def loss(logits, rows):
        seen.append(rows)
        return functional.cross_entropy(logits, split("train").labels[rows])

    log = train(fresh(), split("train"), replace(SCHEDULE, epochs=3), seed=1, rows=[7, 7, *range(20, 50)], loss=loss)
    assert [len(rows) for rows in seen] == [20, 12] * 3
    epochs = [torch.cat(seen[i : i + 2]).tolist() for i in (0, 2, 4)]
    assert [sorted(epoch) for epoch in epochs] == [[7, 7, *range(20, 50)]] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert log.examples == 3 * 32
    assert log.seconds > 0


class NextToken(nn.Module):
    """Guesses the next token from the last one alone."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 4))

    def forward(self, input_ids, use_cache):
        assert not use_cache
        return SimpleNamespace(logits=self.table[input_ids])


def test_windows_of_tokens_teach_what_follows_each_token():
    """Counting up, modulo 4: every window holds L - 1 examples, and a row is a window."""
    windows = (torch.arange(20).unsqueeze(1) + torch.arange(6)) % 4
    examples = Split("train", windows, windows[:, 1:].flatten(), [str(i) for i in range(20)], "count")
    module = as_read_by("text", NextToken())
    log = train(module, examples, Schedule(60, 0.1, batch_size=8), seed=1)
    assert module.table.argmax(dim=1).tolist() == [1, 2, 3, 0]
    assert log.examples == 60 * 20

    chosen, alone = (as_read_by("text", NextToken()) for _ in range(2))
    train(chosen, examples, Schedule(5, 0.1), seed=1, rows=[3])
    one = Split("train", windows[3:4], windows[3, 1:], ["3"], "one")
    train(alone, one, Schedule(5, 0.1), seed=1)
    assert same(chosen.state_dict(), alone.state_dict())
    assert chosen.table.any()


def test_lower_precision_is_for_the_products_and_the_weights_stay_wide():
    found = trained(NO_DROPOUT, replace(SCHEDULE, augment=0.0, precision="bfloat16"))
    plain = trained(NO_DROPOUT, replace(SCHEDULE, augment=0.0))
    assert {t.dtype for t in found.values()} == {torch.float32}
    assert not same(found, plain)
    assert all(torch.allclose(found[name], plain[name], atol=0.05) for name in plain)


def test_a_loss_of_ones_own_takes_the_place_of_the_labels():
    own = trained(loss=lambda logits, rows: functional.cross_entropy(logits, split("train").labels[rows]))
    assert same(own, trained())
    module = fresh(NO_DROPOUT)
    train(module, split("train"), Schedule(20, 0.05), seed=1, loss=lambda logits, _: -logits[:, 2].mean())
    assert (module(split("train").inputs).argmax(dim=1) == 2).all()


class Pulled(nn.Module):
    """Logits that do not depend on its weight, which only the auxiliary loss moves."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.aux_loss = torch.zeros(())

    def forward(self, images):
        self.aux_loss = (self.weight - 3).square()
        return torch.zeros(len(images), 3) + 0 * self.weight


def test_an_auxiliary_loss_is_added():
    module = nn.Sequential(Pulled())
    train(module, split("train"), Schedule(80, 0.1, batch_size=20, weight_decay=0.0), seed=1)
    assert module[0].weight.item() == pytest.approx(3, abs=0.2)


def test_every_epoch_is_told_of_in_eval_mode_and_that_is_how_the_module_is_left():
    module, told = fresh(CNN_BN).eval(), []
    train(module, split("train"), SCHEDULE, seed=1, after_epoch=lambda epoch: told.append((epoch, module.training)))
    assert told == [(1, False), (2, False)]
    assert not any(part.training for part in module.modules())


def test_dropout_and_statistics_are_at_work_in_every_epoch():
    modes = []

    class Spy(nn.Module):
        def forward(self, images):
            modes.append(self.training)
            return images

    train(nn.Sequential(Spy(), fresh()), split("train"), SCHEDULE, seed=1)
    assert modes == [True] * 6


def test_the_split_is_not_changed_by_the_noise():
    examples = split("train")
    before = examples.inputs.clone()
    trained(schedule=replace(SCHEDULE, augment=5.0))
    assert torch.equal(examples.inputs, before)


def test_it_learns():
    module = fresh(NO_DROPOUT)
    train(module, split("train"), Schedule(60, 0.01, batch_size=20), seed=1)
    assert (module(split("train").inputs).argmax(dim=1) == split("train").labels).double().mean() > 0.95


@pytest.mark.parametrize("at_once", [7, 1])
def test_a_batch_run_in_pieces_is_the_same_step(at_once):
    """Batches of 25, 25 and 10 in pieces of 7, the last of a batch smaller: each example counts alike."""
    schedule = Schedule(2, 0.01, batch_size=25)
    whole = trained(NO_DROPOUT, schedule)
    pieces = trained(NO_DROPOUT, schedule, examples=replace(split("train"), batch=at_once))
    assert is_nearly(pieces, whole)
    assert not is_nearly(whole, fresh(NO_DROPOUT).state_dict())
