"""Distillation and the trained mixture of experts: the loss, the teacher, the sizes and what is refused."""

import importlib
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from scipy import special
from transformers import AutoModelForCausalLM, LlamaConfig

from harness.checks.pools import (
    CNN,
    CNN_BN,
    MLP,
    build_method,
    fine_tunes,
    independent,
    ingredients,
    member,
    mixed,
    on_test,
    plain_predict,
    split,
    trained,
)
from harness.errors import BadInput
from harness.methods.trained import distill as distilling
from harness.methods.trained.distill import distillation_loss
from harness.models import forward
from harness.models.architectures import build
from harness.models.configuration import architecture_of
from harness.models.training import Schedule, train
from harness.models.weights import load_module, module_with
from harness.moe.layer import PATHS, MixtureOfExperts
from harness.moe.losses import squared_variation
from harness.registry import METHODS
from harness.systems.parts import MemberPart
from harness.types import Architecture, NotApplicable, Pool, Split


@cache
def skilled(count):
    """A pool that knows most of the examples: a teacher with something to teach."""
    members = []
    for k in range(count):
        module = module_with(MLP, trained(MLP, k))
        train(module, split("train"), Schedule(8, 0.01, batch_size=20), seed=k)
        members.append(member(f"i{k}", module.state_dict(), MLP))
    return Pool("skilled", "independent", tuple(members))


def problem(seed=0, rows=12, classes=5):
    """A student's logits, labels and a teacher's logits."""
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 2 * torch.randn(2, rows, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (rows,), generator=generator), teacher


def gradient(logits, labels, teacher, temperature, alpha):
    """Of the distillation loss by the logits, for a teacher's logits."""
    logits = logits.clone().requires_grad_()
    at_temperature = torch.log_softmax(teacher / temperature, dim=-1)
    distillation_loss(logits, labels, at_temperature, temperature, alpha).backward()
    return logits.grad


# The loss


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_loss_is_its_formula(temperature, alpha):
    logits, labels, teacher = problem()
    student = special.log_softmax(logits.numpy(), axis=-1)
    soft_student = special.log_softmax(logits.numpy() / temperature, axis=-1)
    soft_teacher = special.softmax(teacher.numpy() / temperature, axis=-1)
    hard = -np.mean([row[label] for row, label in zip(student, labels, strict=True)])
    soft = np.mean(special.rel_entr(soft_teacher, np.exp(soft_student)).sum(axis=-1))
    expected = (1 - alpha) * hard + alpha * temperature**2 * soft
    found = distillation_loss(logits, labels, torch.log_softmax(teacher / temperature, dim=-1), temperature, alpha)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_its_gradient_is_its_formula(temperature):
    logits, labels, teacher = problem(1)
    hard = special.softmax(logits.numpy(), axis=-1) - np.eye(5)[labels]
    soft = special.softmax(logits.numpy() / temperature, axis=-1) - special.softmax(teacher / temperature, axis=-1)
    expected = (0.3 * hard + 0.7 * temperature * soft) / len(labels)
    np.testing.assert_allclose(gradient(logits, labels, teacher, temperature, 0.7), expected, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_label_that_the_teacher_excludes_adds_nothing_and_is_unlearned(temperature):
    logits, labels, teacher = problem(4)
    teacher[torch.rand(teacher.shape, generator=torch.Generator().manual_seed(4)) < 0.4] = -np.inf
    teacher[:, 0] = 0.0
    assert teacher.isneginf().any()
    student, soft = special.softmax(logits / temperature, axis=-1), special.softmax(teacher / temperature, axis=-1)
    given = torch.log_softmax(teacher / temperature, dim=-1)
    expected = temperature**2 * special.rel_entr(soft, student).sum(axis=-1).mean()
    assert float(distillation_loss(logits, labels, given, temperature, 1.0)) == pytest.approx(expected, rel=1e-12)
    expected = temperature * (student - soft) / len(labels)
    np.testing.assert_allclose(gradient(logits, labels, teacher, temperature, 1.0), expected, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_student_that_is_the_teacher_has_nothing_to_learn(temperature):
    logits, labels, _ = problem(2)
    soft = torch.log_softmax(logits / temperature, dim=-1)
    assert float(distillation_loss(logits, labels, soft, temperature, 1.0)) == pytest.approx(0, abs=1e-14)
    assert gradient(logits, labels, logits, temperature, 1.0).abs().max() < 1e-14
    assert float(distillation_loss(logits + torch.eye(12, 5), labels, soft, temperature, 1.0)) > 1e-3


def test_the_squared_temperature_keeps_the_scale_of_the_gradient():
    logits, labels, teacher = problem(3)
    difference = logits - teacher
    limit = (difference - difference.mean(dim=-1, keepdim=True)) / 5 / 12  # Hinton et al. 2015, equation 4
    norms = [float(gradient(logits, labels, teacher, t, 1.0).norm() / limit.norm()) for t in (10, 100, 1000)]
    assert norms == pytest.approx([1, 1, 1], rel=0.1)
    assert norms[2] == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(gradient(logits, labels, teacher, 1e4, 1.0), limit, atol=0, rtol=1e-2)


# Distillation


def counted_predict(calls):
    def predict(part, examples):
        calls[part.name, examples.name] += 1
        return plain_predict(part, examples)

    return predict


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_teacher_is_asked_once_for_each_member(epochs):
    calls = Counter()
    method = METHODS.get("distill")
    given = ingredients(independent(), tuple(method.needs), predict=counted_predict(calls))
    method.apply(given, method.validate({"epochs": epochs}))
    assert calls == {(f"i{k}", "train"): 1 for k in range(3)}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_teacher_is_the_mean_of_the_members_softened_probabilities(temperature, monkeypatch):
    seen = []

    def observed(*args, loss, **options):
        seen.append(loss)
        return train(*args, loss=loss, **options)

    monkeypatch.setattr(importlib.import_module("harness.methods.trained.distill"), "train", observed)
    pool = skilled(3)
    build_method("distill", pool, temperature=temperature, alpha=0.8, epochs=1)
    examples, rows = split("train"), torch.tensor([5, 3, 11, 40])
    with torch.no_grad():
        logits = [load_module(m)(examples.inputs).double().numpy() for m in pool.members]
    teacher = np.mean([special.softmax(z / temperature, axis=-1) for z in logits], axis=0)[rows]
    student = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    soft = special.rel_entr(teacher, special.softmax(student.double() / temperature, axis=-1)).sum(axis=-1).mean()
    hard = float(torch.nn.functional.cross_entropy(student, examples.labels[rows]))
    assert float(seen[0](student, rows)) == pytest.approx(0.2 * hard + 0.8 * temperature**2 * soft, rel=1e-5)


@pytest.mark.parametrize("architecture", [CNN, MLP], ids=lambda a: a.name)
def test_a_student_of_half_the_size_has_fewer_parameters(architecture):
    pool = independent(2, architecture)
    full = parameters(load_module(pool.members[0]))
    assert parameters(build_method("distill", pool, epochs=1).module) == full
    half = build_method("distill", pool, epochs=1, size="half")
    assert parameters(half.module) < 0.6 * full
    assert half.architecture.name == architecture.name
    assert half.details["student"] == str(half.architecture)
    assert len(half.parts()) == 1


@pytest.mark.parametrize("architecture", [CNN, MLP], ids=lambda a: a.name)
def test_a_quarter_is_the_half_of_the_half(architecture):
    widths = dict(architecture.options)
    found = build_method("distill", independent(2, architecture), epochs=1, size="quarter")
    quartered = {name: max(1, widths[name] // 2 // 2) for name in ("width", "hidden") if name in widths}
    assert dict(found.architecture.options) == widths | quartered
    assert parameters(found.module) == parameters(build(found.architecture))


def test_a_quarter_of_a_wide_network_has_about_a_sixteenth_of_its_parameters():
    options = {"features": 16, "classes": 26, "hidden": 192}
    whole = Architecture("table_mlp", tuple(sorted(options.items())))
    quarter = distilling._sized(whole, "quarter")
    hidden = 48
    expected = 16 * hidden + hidden + hidden * hidden + hidden + hidden * 26 + 26
    assert parameters(build(quarter)) == expected < parameters(build(whole)) / 8


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
def test_before_it_learns_anything_a_student_from_the_soup_is_the_soup(architecture):
    pool = fine_tunes(3, architecture)
    soup = build_method("uniform_soup", pool)
    student = build_method("distill", pool, start="soup", epochs=1, lr=1e-12)
    assert student.architecture == soup.architecture
    found, expected = student.module.state_dict(), soup.module.state_dict()
    learned = {name for name, _ in soup.module.named_parameters()}
    for name in learned:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)
    longer = build_method("distill", pool, start="soup", epochs=2, lr=0.01).module.state_dict()
    assert any(not torch.allclose(longer[name], expected[name], atol=1e-3) for name in learned)
    fresh = build_method("distill", pool, epochs=1, lr=1e-12).module.state_dict()
    assert any(not torch.allclose(fresh[name], expected[name], atol=1e-2) for name in learned)


def test_a_soup_of_other_starts_is_warned_of_as_the_soup_itself_warns():
    pool = independent(2)
    warned = build_method("distill", pool, start="soup", epochs=1).details["warnings"]
    assert warned == build_method("uniform_soup", pool).details["warnings"]
    assert "warnings" not in build_method("distill", pool, epochs=1).details


@pytest.mark.parametrize("start", ["base", "soup"])
@pytest.mark.parametrize(("size", "words"), [("half", "half the size"), ("quarter", "a quarter of the size")])
def test_a_smaller_student_starts_fresh_only(start, size, words):
    with pytest.raises(NotApplicable, match=f"a student of {words} cannot start from the {start}"):
        build_method("distill", fine_tunes(2), start=start, size=size, epochs=1)


def test_there_is_no_soup_to_start_from_where_members_cannot_be_averaged():
    with pytest.raises(NotApplicable, match="different architectures: cnn and mlp: small_cnn and mlp"):
        build_method("distill", mixed(), start="soup", epochs=1)
    assert build_method("distill", mixed(), epochs=1).architecture == CNN


@pytest.mark.parametrize(
    ("given", "name", "phrase"),
    [
        ({}, {}, "student taught by two"),
        ({"size": "half"}, {"size": "half"}, "student of half the size taught by two"),
        ({"size": "quarter"}, {"size": "quarter"}, "student of a quarter of the size taught by two"),
        ({"start": "soup"}, {"start": "soup"}, "student taught by two (start soup)"),
        ({"alpha": 0.5}, {"alpha": 0.5}, "student taught by two (alpha 0.5)"),
        ({"alpha": 0.0}, {"alpha": 0.0}, "student taught by labels alone"),
        ({"alpha": 0.0, "size": "half"}, {"alpha": 0.0, "size": "half"},
         "student of half the size taught by labels alone"),
    ],
)  # fmt: skip
def test_its_name_says_what_differs_from_the_usual_student(given, name, phrase):
    method = METHODS.get("distill")
    full = method.validate(given)
    assert method.variant_parameters(full) == name
    assert method.phrase(full, "two") == phrase


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_members_are_called_its_teachers_where_it_would_be_another_with_others(alpha):
    one, other = (build_method("distill", pool, alpha=alpha, epochs=1) for pool in (fine_tunes(2), independent(2)))
    tensors = zip(one.module.parameters(), other.module.parameters(), strict=True)
    changed = not all(torch.equal(ours, theirs) for ours, theirs in tensors)
    method = METHODS.get("distill")
    assert ("taught by two" in method.phrase(method.validate({"alpha": alpha}), "two")) == changed


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_a_student_comes_closer_to_its_teacher():
    pool = skilled(3)
    teacher = torch.stack([plain_predict(MemberPart(m), split("train")) for m in pool.members]).exp().mean(dim=0)

    def distance(epochs):
        student = build_method("distill", pool, alpha=1.0, epochs=epochs, lr=0.01)
        found = plain_predict(student.parts()[0], split("train"))
        assert student.details["examples_seen"] == 60 * epochs
        return float((teacher * (teacher.log() - found)).sum(dim=-1).mean())

    assert distance(60) < 0.3 * distance(1)


def test_a_student_tells_how_right_and_how_sure_its_teacher_was_of_the_training_examples():
    pool, examples = skilled(3), split("train")
    mean = torch.stack([plain_predict(MemberPart(m), examples) for m in pool.members]).double().exp().mean(dim=0)
    for temperature in (1.0, 3.0):  # as it answers, whatever it is softened to
        details = build_method("distill", pool, epochs=1, temperature=temperature).details
        assert details["teacher_confidence"] == pytest.approx(float(mean.max(dim=-1).values.mean()), rel=1e-5)
        assert details["teacher_right"] == pytest.approx(float((mean.argmax(-1) == examples.labels).double().mean()))


def test_a_student_depends_on_its_teacher_only_as_much_as_alpha_says():
    one, other = skilled(2), Pool("two", "independent", skilled(4).members[2:])
    assert torch.equal(*(on_test(build_method("distill", pool, alpha=0.0, epochs=1)) for pool in (one, other)))
    assert not torch.equal(*(on_test(build_method("distill", pool, alpha=0.5, epochs=1)) for pool in (one, other)))


def test_without_a_share_of_the_teacher_it_is_plain_training_on_the_labels():
    pool = skilled(2)
    found = build_method("distill", pool, alpha=0.0, epochs=3, lr=0.01)
    with torch.random.fork_rng():
        torch.manual_seed(ingredients(pool).seed)
        plain = build(MLP)
    train(plain, split("train"), Schedule(3, 0.01), seed=ingredients(pool).seed)
    nearly = build_method("distill", pool, alpha=1e-12, epochs=3, lr=0.01).module.state_dict()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(found.module.state_dict()[name], tensor, atol=0, rtol=0)
        torch.testing.assert_close(nearly[name], tensor, atol=1e-5, rtol=0)


# Mixture of experts


@pytest.mark.parametrize(("experts", "k"), [(2, 3), (4, 9)])
def test_more_experts_than_there_are_cannot_run(experts, k):
    with pytest.raises(NotApplicable, match=f"k={k} experts cannot run: there are only {experts}"):
        build_method("moe", independent(1), experts=experts, k=k)


def test_a_network_without_a_hidden_layer_to_split_is_not_applicable():
    with pytest.raises(NotApplicable, match="mlp has no hidden layer"):
        build_method("moe", independent(2, MLP), epochs=1)
    assert build_method("moe", mixed(), epochs=1).architecture.name == "small_cnn"  # "cnn" comes before "mlp"


def layer_of(combination):
    return next(part for part in combination.module.modules() if isinstance(part, MixtureOfExperts))


@pytest.mark.parametrize(("routing", "k", "active"), [("sparse", 1, 1), ("sparse", 2, 2), ("dense", 1, 3)])
def test_the_hidden_layer_is_the_mixture_that_was_asked_for(routing, k, active):
    found = build_method("moe", independent(1), experts=3, k=k, routing=routing, balance=0.3, epochs=1)
    layer = layer_of(found)
    gate = layer.gate
    assert (gate.experts, gate.k, layer.dispatch, gate.balance_weight) == (3, active, PATHS[routing], 0.3)
    assert len(found.details["expert_load"]) == 3
    assert sum(found.details["expert_load"]) == pytest.approx(active)
    if routing == "dense":
        assert found.details["expert_load"] == [1.0, 1.0, 1.0]


def test_a_path_is_taken_by_name_or_by_time_and_said():
    named = build_method("moe", independent(1), epochs=1, dispatch="index")
    assert layer_of(named).dispatch == "index"
    assert named.details["dispatch"] == "index (named)"
    usual = build_method("moe", independent(1), epochs=1)
    assert "dispatch" not in usual.details
    assert named.details["expert_load"] == pytest.approx(usual.details["expert_load"], abs=0.02)
    measured = build_method("moe", independent(1), epochs=1, dispatch="auto").details["dispatch"]
    assert re.fullmatch(r"\w+ [\d.]+ ms \(.*dense [\d.]+ ms.*\)|dense [\d.]+ ms \(.*\)", measured)


def test_an_unknown_path_is_answered_with_the_nearest():
    with pytest.raises(BadInput, match=r"unknown dispatch path 'sort'; did you mean 'sorted'\? \(known: dense, "):
        METHODS.get("moe").validate({"dispatch": "sort"})
    assert METHODS.get("moe").validate({"dispatch": "auto"})["dispatch"] == "auto"


def test_the_balance_losses_even_the_load():
    def imbalance(balance):
        found = build_method("moe", independent(1), k=1, balance=balance, epochs=40, lr=0.02)
        return float(squared_variation(torch.tensor(found.details["expert_load"])))

    assert imbalance(1.0) < 0.5 * imbalance(0.0)


# Language models


LLAMA = Architecture("tiny_llama", (("context", 32), ("heads", 2), ("hidden", 16), ("layers", 1), ("vocab", 24)))


@cache
def windows(name, count=24, length=12):
    """Counting sequences with a step of their own: what follows is certain after two tokens."""
    generator = torch.Generator().manual_seed(len(name))
    start, step = torch.randint(24, (2, count, 1), generator=generator)
    inputs = (start + (1 + step % 3) * torch.arange(length)) % 24
    return Split(name, inputs, inputs[:, 1:].flatten(), [str(i) for i in range(count)], name, batch=8, criterion="nll")


@cache
def counting_pool():
    base = build(LLAMA)
    members = []
    for k in range(2):
        module = module_with(LLAMA, base.state_dict())
        train(module, windows("train"), Schedule(3, 1e-2, batch_size=8), seed=k)
        members.append(member(f"i{k}", module.state_dict(), LLAMA))
    return Pool("counting", "fine_tunes", tuple(members), member("base", base.state_dict(), LLAMA))


def divergence(module, pool):
    """KL of the pool's mean from a network, on held-out windows."""
    batch = windows("heldout").inputs
    stacked = torch.stack([MemberPart(each).log_probs(batch) for each in pool.members]).double()
    teacher = torch.logsumexp(stacked, dim=0) - np.log(len(stacked))
    student = torch.log_softmax(forward.logits(module, batch).double(), dim=-1)
    return float((teacher.exp() * (teacher - student)).sum(-1).mean())


@pytest.mark.parametrize("start", ["fresh", "base"])
def test_a_language_models_student_nears_the_mean_of_its_members_token_by_token(start):
    pool = counting_pool()
    distill = METHODS.get("distill")
    given = ingredients(pool, tuple(distill.needs), train_=windows("train"), heldout_=windows("heldout"))
    made = distill.apply(given, distill.validate({"epochs": 6, "lr": 1e-2, "start": start}))
    before = module_with(LLAMA, pool.base.weights)
    with torch.no_grad():
        assert divergence(made.module, pool) < 0.5 * divergence(before, pool)


def test_the_teacher_of_tokens_is_the_mean_of_the_members_on_those_windows():
    pool = counting_pool()
    given = ingredients(pool, ("members", "train"), train_=windows("train"))
    rows = torch.tensor([5, 2])
    teacher, told = distilling._teacher(given, 2.0)
    found = teacher(rows)
    assert told == {}
    stacked = torch.stack([MemberPart(each).log_probs(windows("train").inputs[rows]) for each in pool.members]).double()
    soft = torch.log_softmax(stacked / 2, dim=-1)
    torch.testing.assert_close(found.double(), torch.logsumexp(soft, 0) - np.log(2), atol=1e-5, rtol=0)


def test_a_student_of_a_language_models_folder_starts_fresh_as_transformers_starts_it_at_any_size():
    sizes = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=4)
    folder = architecture_of(config)
    given = ingredients(counting_pool())
    for size, width in (("same", 16), ("half", 8), ("quarter", 4)):
        torch.manual_seed(1)
        student, _ = distilling._student(given, distilling._sized(folder, size), "fresh")
        torch.manual_seed(1)
        expected = AutoModelForCausalLM.from_config(student.config).state_dict()
        assert student.config.hidden_size == width
        assert all(torch.equal(tensor, expected[name]) for name, tensor in student.state_dict().items())
    odd = architecture_of(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))
    reason = "no student of a quarter of the size: num_attention_heads is 1, which has no half"
    with pytest.raises(NotApplicable, match=reason):
        distilling._sized(odd, "quarter")
