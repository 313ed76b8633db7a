"""Text from a rule against a loop that runs the whole text again for every token, and against transformers."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from harness.errors import BadInput
from harness.lm.generation import Sampling, Stop, filtered, generate, has_state, sees_padding
from harness.systems.rules import Contrast, Gated, Linear, LogLinear
from harness.types import NotApplicable
from tests.lm.conftest import KINDS

RULES = {
    "linear": Linear(torch.tensor([0.2, 0.3, 0.5])),
    "log_linear": LogLinear(torch.tensor([0.9, 0.7, -0.6])),
    "gate": Gated(torch.tensor([0.1, -0.4, 0.2]), torch.tensor([0.5, -0.3, 0.8]), "linear"),
    "dexperts": Contrast(0.6, "dexperts", 0.9),
}
PROMPTS = [(5, 6, 7, 8, 9, 10, 11), (40,), (100, 101, 102), (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5)]
SAMPLED = Sampling(temperature=1.3, top_k=50, top_p=0.95, seed=3)


def plainly(models, rule, prompt, count):
    """Greedy, in float64, one prompt at a time, without a cache."""
    double = [model.double() for model in models]
    text = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            stacked = torch.stack([model(torch.tensor([text])).logits[0, -1].log_softmax(-1) for model in double])
            text.append(int(rule(stacked).argmax()))
    for model in models:
        model.float()
    return text[len(prompt) :]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_greedy_text_is_that_of_a_plain_loop_with_and_without_cache(pools, kind, name):
    expected = [plainly(pools[kind], RULES[name], prompt, 12) for prompt in PROMPTS]
    for cache in (True, False):
        assert generate(pools[kind], RULES[name], PROMPTS, 12, cache=cache) == expected


def test_members_of_different_kinds(pools):
    models = [pools["llama"][0], pools["gpt2"][0], pools["qwen2"][0]]
    expected = [plainly(models, RULES["linear"], prompt, 8) for prompt in PROMPTS]
    assert generate(models, RULES["linear"], PROMPTS, 8) == expected


def test_a_text_that_is_done_leaves_the_batch_and_the_others_do_not_notice(pools):
    models, rule = pools["llama"], RULES["linear"]
    whole = generate(models, rule, PROMPTS, 12)
    for ends in (frozenset({whole[0][2]}), frozenset({whole[1][4], whole[2][0]}), frozenset({row[5] for row in whole})):
        for cache in (True, False):
            found = generate(models, rule, PROMPTS, 12, stop=Stop(ids=ends), cache=cache)
            for text, uncut in zip(found, whole, strict=True):
                end = next((n for n, token in enumerate(uncut) if token in ends), 11)
                assert text == uncut[: end + 1]


@pytest.mark.parametrize("kind", [*KINDS, "roberta"])
def test_a_text_depends_neither_on_its_batch_nor_on_the_cache(make, kind):
    """Whether a model remembers keys and values or a state, and however it tells where a token stands."""
    models, rule = [make(kind)], Linear(torch.ones(1))
    together = generate(models, rule, PROMPTS, 24)  # longer than the windows, and than what LongRoPE calls short
    assert together == [generate(models, rule, [prompt], 24)[0] for prompt in PROMPTS]
    assert together == generate(models, rule, PROMPTS, 24, cache=False)
    ends = frozenset({together[0][2], together[1][9]})
    cut = generate(models, rule, PROMPTS, 24, stop=Stop(ids=ends))
    for text, whole in zip(cut, together, strict=True):
        assert text == whole[: next((n for n, token in enumerate(whole) if token in ends), 23) + 1]


def test_padding_is_tried_and_states_are_known(pools, make):
    assert {kind for kind in KINDS if has_state(make(kind))} == {"mamba", "states", "conv"}
    seen = {kind for kind in [*KINDS, "roberta"] if sees_padding(make(kind), PROMPTS)}
    assert seen == {"bloom", "longrope", "mamba", "states", "conv"}

    def deaf(input_ids, attention_mask=None, position_ids=None, use_cache=False):
        return pools["gpt2"][0](input_ids)

    def refusing(input_ids, attention_mask=None, position_ids=None, use_cache=False):
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("no mask, please")
        return deaf(input_ids)

    expected = generate(pools["gpt2"][:1], Linear(torch.ones(1)), PROMPTS, 8)
    for model in (deaf, refusing):
        assert sees_padding(model, PROMPTS)
        assert generate([model], Linear(torch.ones(1)), PROMPTS, 8, cache=False) == expected


def test_a_stop_string_ends_a_text_inside_and_across_tokens(pools, tokenizer):
    models, rule = pools["llama"], RULES["linear"]
    (whole,) = generate(models, rule, PROMPTS[:1], 12)
    assert len(tokenizer.decode(whole)) > 6
    for string in (tokenizer.decode(whole)[3:6], tokenizer.decode(whole[2:4]), tokenizer.decode(whole[:1])):
        stop = Stop(strings=("never said", string), decode=tokenizer.decode)
        (found,) = generate(models, rule, PROMPTS[:1], 12, stop=stop)
        assert found == whole[: len(found)]
        assert string in tokenizer.decode(found)
        assert string not in tokenizer.decode(found[:-1])


def test_a_stop_string_is_found_only_in_what_is_new():
    stop = Stop(strings=("ab",), decode=lambda tokens: "".join(map(chr, tokens)))
    assert stop.reached([ord(letter) for letter in "xab"])
    assert not stop.reached([ord("b")])
    assert not stop.reached([ord(letter) for letter in "abxyz"])  # it would have ended three tokens ago


# Sampling


def test_the_same_seed_says_the_same_and_another_does_not(pools):
    models, rule = pools["llama"], RULES["linear"]
    first = generate(models, rule, PROMPTS, 10, sampling=SAMPLED)
    assert generate(models, rule, PROMPTS, 10, sampling=SAMPLED) == first
    assert generate(models, rule, PROMPTS, 10, sampling=Sampling(1.3, 50, 0.95, seed=4)) != first
    torch.manual_seed(99)
    torch.rand(7)
    assert generate(models, rule, PROMPTS, 10, sampling=SAMPLED, cache=False) == first


def test_a_sample_does_not_depend_on_its_batch(pools):
    models, rule = pools["gpt2"], RULES["log_linear"]
    together = generate(models, rule, PROMPTS, 10, sampling=SAMPLED)
    alone = [generate(models, rule, [p], 10, sampling=SAMPLED, numbers=[n])[0] for n, p in enumerate(PROMPTS)]
    assert together == alone
    same = generate(models, rule, [PROMPTS[0]] * 3, 10, sampling=SAMPLED)
    assert same[0] == together[0]
    assert len({tuple(text) for text in same}) == 3  # each of three equal prompts has its own stream


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0.7), Sampling(1.0, top_k=3), Sampling(2.0, top_p=0.8), Sampling(1.5, top_k=10, top_p=0.6), SAMPLED],
)
def test_what_may_be_drawn_is_what_transformers_would_draw_from(sampling):
    log_probs = torch.log_softmax(2 * torch.randn(20, 60, generator=torch.Generator().manual_seed(0)), -1)
    scores = TemperatureLogitsWarper(sampling.temperature)(None, log_probs)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    torch.testing.assert_close(filtered(log_probs, sampling), torch.log_softmax(scores, -1))


def test_tokens_are_drawn_as_often_as_they_are_likely(pools):
    models, rule = pools["llama"], RULES["linear"]
    sampling, count = Sampling(1.0, top_k=4), 2000
    with torch.no_grad():
        stacked = torch.stack([model(torch.tensor([PROMPTS[0]])).logits[0, -1].log_softmax(-1) for model in models])
    expected = filtered(rule(stacked)[None], sampling)[0].exp()
    texts = generate(models, rule, [PROMPTS[0]] * count, 1, sampling=sampling)
    found = torch.bincount(torch.tensor([text[0] for text in texts]), minlength=320) / count
    assert (found - expected).abs().max() < 5 * (0.25 / count) ** 0.5
    assert set(found.nonzero().flatten().tolist()) == set(expected.nonzero().flatten().tolist())


# What cannot be


def test_nothing_to_generate(pools):
    assert generate(pools["llama"], RULES["linear"], [], 5) == []
    assert generate(pools["llama"], RULES["linear"], PROMPTS, 0) == [[], [], [], []]


def test_errors_are_named(pools, make):
    models, rule = pools["llama"], RULES["linear"]
    with pytest.raises(BadInput, match="prompt 1: the prompt has no tokens"):
        generate(models, rule, [(1,), ()], 5)
    with pytest.raises(BadInput, match="3 weights for 2 members"):
        generate(models[:2], rule, PROMPTS, 5)
    with pytest.raises(NotApplicable, match="vocabulary"):
        generate([*models[:2], make("gpt2", vocabulary=100)], rule, PROMPTS, 5)
    broken = make("llama", 5)
    broken.lm_head.weight.data[3, 3] = torch.nan
    with pytest.raises(NotApplicable, match="model 2 gives logits that are not finite"):
        generate([*models[:2], broken], rule, PROMPTS, 5)


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_that_leaves_nothing(wrong):
    with pytest.raises(BadInput):
        Sampling(**wrong)
