"""The combined model against lm-eval's own ``hf`` model, request by request."""

import copy
import functools
from unittest import TestCase

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness.errors import BadInput
from harness.lm import lm_eval_model
from harness.lm.encoding import requests_of
from harness.lm.generation import generate
from harness.lm.lm_eval_model import StockpotLM
from harness.lm.mixing import System
from harness.lm.scoring import score
from harness.systems.rules import Linear, LogLinear
from harness.types import NotApplicable
from tests.lm.conftest import KINDS

ONE = Linear(torch.ones(1))
STORY = "In the beginning the cook put water and bones into the pot, and the pot stood on the fire all day. "
CHOICES = [" salt at the start", " salt at the end", " a bay leaf and time", " onions"]


def instances(kind, arguments):
    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


def choices():
    """Multiple choice, and what is odd: no context, spaces between, duplicates, one token, a context too long."""
    contexts = [STORY, "Nobody knows", STORY + "Another said", "What goes into a stockpot is", "x"]
    pairs = [(context, choice) for context in contexts for choice in CHOICES]
    pairs += [
        ("", "time and salt"),
        ("", "<|end|>salt"),
        ("salt at the  ", "end"),
        ("the pot", " "),
        pairs[2],
        pairs[2],
    ]
    pairs += [(8 * STORY, choice) for choice in CHOICES]
    return instances("loglikelihood", pairs)


def texts():
    return instances("loglikelihood_rolling", [(STORY,), ("",), ("a",), (STORY * 6,), ("Onions, leeks, carrots.",)])


def prompts():
    """Two settings, so that batches are made of requests that may stand together."""
    short, longer = {"until": ["the", "\n\n"], "max_gen_toks": 12}, {"until": "e", "max_new_tokens": 20}
    found = [(text, short) for text in ("salt", STORY, "What goes into", "def simmer(", "One said salt", 6 * STORY)]
    found += [(text, longer) for text in ("Nobody knows which", "pepper, and")]
    return instances("generate_until", found)


def theirs(model, tokenizer, batch_size, **options):
    return HFLM(model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size, **options)


def assert_same_answers(found, expected):
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)


@pytest.fixture(scope="module")
def expected(pools, tokenizer):
    """What lm-eval's own model answers, by kind of model and batch size."""
    answers = {}
    for kind in ("llama", "gpt2", "qwen2"):
        for size in (1, 16):
            lm = theirs(pools[kind][0], tokenizer, size)
            answers[kind, size] = (
                lm.loglikelihood(choices(), disable_tqdm=True),
                lm.loglikelihood_rolling(texts(), disable_tqdm=True),
                lm.generate_until(prompts(), disable_tqdm=True),
            )
    return answers


@pytest.mark.parametrize("batch_tokens", [1, 2000], ids=["batch of 1", "large batch"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_one_member_answers_as_lm_evals_own_model(pools, tokenizer, expected, kind, packed, batch_tokens):
    lm = StockpotLM(pools[kind][:1], ONE, tokenizer, packed=packed, batch_tokens=batch_tokens)
    scored = lm.loglikelihood(choices(), disable_tqdm=True)
    rolled = lm.loglikelihood_rolling(texts(), disable_tqdm=True)
    written = lm.generate_until(prompts(), disable_tqdm=True)
    for size in (1, 16):
        answers, totals, strings = expected[kind, size]
        assert_same_answers(scored, answers)
        assert rolled == pytest.approx(totals, abs=1e-4)
        assert written == strings
    assert len(set(written)) > 4


def test_a_member_of_weight_zero_is_not_held(pools, tokenizer):
    lm = StockpotLM(pools["llama"], Linear(torch.tensor([0.5, 0.0, 0.5])), tokenizer)
    assert lm.models == [pools["llama"][0], pools["llama"][2]]


def test_a_member_alone_is_scored_over_all_it_has_and_with_others_over_the_tokens_of_their_tokenizer(
    pools, make, tokenizer
):
    known = len(tokenizer)
    padded = [make("llama", 1, vocabulary=known + 8), make("gpt2", 2, vocabulary=known + 24)]
    assert StockpotLM(padded[:1], ONE, tokenizer).vocabulary == known + 8
    alone = StockpotLM(padded[1:], ONE, tokenizer)
    assert_same_answers(alone.loglikelihood(choices()), theirs(padded[1], tokenizer, 1).loglikelihood(choices()))
    cut = [make("llama", 1, vocabulary=known + 8), make("gpt2", 2, vocabulary=known + 24)]
    for model in cut:  # the same models without the padding
        model.resize_token_embeddings(known)
    rule = Linear(torch.tensor([0.4, 0.6]))
    both, expected = StockpotLM(padded, rule, tokenizer), StockpotLM(cut, rule, tokenizer)
    assert both.vocabulary == known
    assert_same_answers(both.loglikelihood(choices()), expected.loglikelihood(choices()))
    assert both.loglikelihood_rolling(texts()) == pytest.approx(expected.loglikelihood_rolling(texts()), abs=1e-4)
    assert both.generate_until(prompts()) == expected.generate_until(prompts())
    with pytest.raises(NotApplicable, match=r"model 1 \(LlamaForCausalLM\) lacks some of the"):
        StockpotLM([padded[0], make("llama", 3, vocabulary=100)], rule, tokenizer)


def test_all_the_weight_on_one_member_is_that_member(pools, tokenizer):
    alone = StockpotLM(pools["llama"][:1], ONE, tokenizer)
    for rule in (Linear(torch.tensor([1.0, 0.0, 0.0])), LogLinear(torch.tensor([1.0, 0.0, 0.0]))):
        all_of_them = StockpotLM(pools["llama"], rule, tokenizer)
        for method, requests in (("loglikelihood", choices()), ("loglikelihood_rolling", texts())):
            assert getattr(all_of_them, method)(requests) == getattr(alone, method)(requests)
        assert all_of_them.generate_until(prompts()) == alone.generate_until(prompts())


def test_greedy_choices_are_flagged(pools, tokenizer):
    """A model's own words are its first choice, and lm-eval agrees."""
    context = tokenizer.encode("salt")
    (said,) = generate(pools["gpt2"][:1], ONE, [context], 3)
    tokens = [(None, context, said), (None, context, [*said[:2], said[2] + 1]), (None, [*context, said[0]], said[1:])]
    found = StockpotLM(pools["gpt2"][:1], ONE, tokenizer)._loglikelihood_tokens(tokens, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [True, False, True]
    other = theirs(pools["gpt2"][0], tokenizer, 1)
    assert_same_answers(found, [other._loglikelihood_tokens([each], disable_tqdm=True)[0] for each in tokens])


# What a model's own settings ask for

ENDS = list(range(60, 200))
OBEYED = [
    {"eos_token_id": [0, *ENDS]},
    {"eos_token_id": None},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 1},
    {"suppress_tokens": list(range(2, 120))},
    {"begin_suppress_tokens": list(range(2, 310))},
    {"bad_words_ids": [[5], [6, 7], *([k] for k in range(100, 200))]},
    {"min_new_tokens": 10, "eos_token_id": ENDS},
    {"min_length": 14, "eos_token_id": ENDS},
    {"forced_eos_token_id": 7},
    {"encoder_repetition_penalty": 3.0},
    {"encoder_no_repeat_ngram_size": 1},
    {"exponential_decay_length_penalty": (3, 2.0), "eos_token_id": [100]},
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20},
    {"max_length": 30, "use_cache": False, "renormalize_logits": True},
]


@pytest.fixture
def settled(pools):
    """Models whose settings are put back afterwards."""
    kept = [copy.deepcopy(model.generation_config) for model in pools["llama"]]
    yield pools["llama"]
    for model, settings in zip(pools["llama"], kept, strict=True):
        model.generation_config = settings


@pytest.mark.parametrize("settings", OBEYED, ids=lambda settings: next(iter(settings)))
def test_a_models_own_settings_are_obeyed_as_in_theirs(settled, tokenizer, settings):
    model = settled[0]
    usual = StockpotLM([model], ONE, tokenizer).generate_until(prompts())
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    found = StockpotLM([model], ONE, tokenizer).generate_until(prompts())
    assert found == theirs(model, tokenizer, 1).generate_until(prompts())
    changes = next(iter(settings)) not in ("do_sample", "max_length") and settings != {"eos_token_id": None}
    assert (found != usual) == changes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beams": 3}, "asks for beam search"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "asks for contrastive search"),
        ({"stop_strings": ["e"]}, r"stop_strings \(\['e'\]\) is not obeyed"),
        ({"max_new_tokens": 5}, r"max_new_tokens \(5\) is not obeyed"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(settled, tokenizer, settings, words):
    for name, value in settings.items():
        setattr(settled[0].generation_config, name, value)
    lm = StockpotLM(settled[:1], ONE, tokenizer)
    lm.loglikelihood(choices()[:2])  # which they do not touch
    with pytest.raises(BadInput, match=f"generation_config of model 0: .*{words}"):
        lm.generate_until(prompts())


def test_a_mixture_ends_where_any_member_does_and_refuses_what_is_done_to_one_model(settled, tokenizer):
    rule = Linear(torch.tensor([0.5, 0.5]))
    whole = generate(settled[:2], rule, [tokenizer.encode("salt")], 12)[0]
    settled[1].generation_config.eos_token_id = [0, whole[4]]
    asked = instances("generate_until", [("salt", {"until": [], "max_gen_toks": 12})])
    assert StockpotLM(settled[:2], rule, tokenizer).generate_until(asked) == [tokenizer.decode(whole[:5])]
    settled[1].generation_config.repetition_penalty = 1.5
    with pytest.raises(BadInput, match="model 1: RepetitionPenaltyLogitsProcessor: done to one model"):
        StockpotLM(settled[:2], rule, tokenizer).generate_until(asked)
    told = instances("generate_until", [("salt", {"until": [], "max_gen_toks": 12, "repetition_penalty": 1.0})])
    assert StockpotLM(settled[:2], rule, tokenizer).generate_until(told) == [tokenizer.decode(whole[:5])]


def test_what_is_drawn_is_drawn_from_what_transformers_would_draw_from(settled, tokenizer):
    drawn = {"until": [], "do_sample": True, "temperature": 50.0, "max_gen_toks": 1}
    asked = instances("generate_until", [("salt", drawn)] * 300)
    with torch.no_grad():
        order = settled[0](torch.tensor([tokenizer.encode("salt")])).logits[0, -1].argsort(descending=True)
    for settings, likely in (({}, 50), ({"top_k": 4}, 4)):
        for name, value in settings.items():
            setattr(settled[0].generation_config, name, value)
        found = set(StockpotLM(settled[:1], ONE, tokenizer).generate_until(asked))
        assert found <= {tokenizer.decode([k], skip_special_tokens=True) for k in order[:likely].tolist()}
        assert len(found) > likely / 2
    settled[1].generation_config.top_k = 9
    with pytest.raises(BadInput, match="the models' own settings differ"):
        StockpotLM(settled[:2], Linear(torch.tensor([0.5, 0.5])), tokenizer).generate_until(asked[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_answers_as_in_theirs(make, tokenizer, kind):
    model = make(kind)
    ours, other = StockpotLM([model], ONE, tokenizer), theirs(model, tokenizer, 1)
    assert_same_answers(ours.loglikelihood(choices()[:12]), other.loglikelihood(choices()[:12]))
    assert ours.generate_until(prompts()) == other.generate_until(prompts())


# The beginning token


@pytest.mark.parametrize("prefix", [None, 5])
@pytest.mark.parametrize("bos", [True, False, None])
def test_the_beginning_token_is_treated_as_theirs(pools, tokenizer, bos, prefix):
    begun = copy.deepcopy(tokenizer)
    begun.bos_token = "<|begin|>"
    model = pools["llama"][0]
    ours = StockpotLM([model], ONE, begun, add_bos_token=bos, prefix_token_id=prefix)
    other = theirs(model, begun, 4, add_bos_token=bos, prefix_token_id=prefix)
    assert ours.prefix_token_id == other.prefix_token_id == (1 if prefix is None else prefix)
    assert ours.eot_token_id == other.eot_token_id == 0
    for text in ("salt", "<|begin|>salt", ""):
        for special in (None, True, False):
            assert ours.tok_encode(text, special) == other.tok_encode(text, special)
    pairs = instances("loglikelihood", [("", "salt"), ("", "<|begin|>salt"), ("<|begin|>salt", " end"), ("a", " b")])
    assert_same_answers(ours.loglikelihood(pairs), other.loglikelihood(pairs))
    assert ours.loglikelihood_rolling(texts()) == pytest.approx(other.loglikelihood_rolling(texts()), abs=1e-4)
    asked = instances("generate_until", [("<|begin|>salt", {"until": ["e"], "max_gen_toks": 9})])
    assert ours.generate_until(asked) == other.generate_until(asked)


def test_one_text_split_at_two_points_is_scored_right_where_lm_evals_collator_is_not(pools, tokenizer):
    """It groups requests by context + continuation[:-1] and reads the shorter continuation from the wrong row."""
    model = pools["llama"][0]
    shorter, longer = (("a", "b"), [5, 6, 7], [8]), (("a", "b"), [5, 6], [7, 8])
    other, ours = theirs(model, tokenizer, 8), StockpotLM([model], ONE, tokenizer)
    alone = [other._loglikelihood_tokens([request], disable_tqdm=True)[0] for request in (shorter, longer)]
    together = other._loglikelihood_tokens([shorter, longer], disable_tqdm=True)
    assert together[0][0] != pytest.approx(alone[0][0], abs=0.1)  # lm-eval 0.4.13's own answer is wrong
    assert together[1][0] == pytest.approx(alone[1][0], abs=1e-4)
    for packed in (True, False, None):
        ours.packed = packed
        assert_same_answers(ours._loglikelihood_tokens([shorter, longer], disable_tqdm=True), alone)


def test_a_context_longer_than_the_model_is_cut_counted_and_warned_of(pools, tokenizer):
    lm = StockpotLM(pools["llama"][:1], ONE, tokenizer)
    with TestCase().assertLogs("lm_eval", "WARNING") as logged:
        lm.loglikelihood(choices())
    assert lm.scored.work.truncated == 4
    assert "contexts were cut on the left to the 128 tokens" in " ".join(logged.output)
    shorter = StockpotLM(pools["llama"][:1], ONE, tokenizer, max_length=20)
    assert_same_answers(
        shorter.loglikelihood(choices()),
        theirs(pools["llama"][0], tokenizer, 8, max_length=20).loglikelihood(choices()),
    )


def test_many_systems_answer_lm_evals_instances_from_one_pass(pools, tokenizer):
    models, asked = pools["llama"], choices() + texts()
    rules = {"linear": Linear(torch.tensor([0.2, 0.3, 0.5])), "product": LogLinear(torch.tensor([0.9, 0.7, -0.6]))}
    encoder = StockpotLM(models, rules["linear"], tokenizer).encoder
    collected = requests_of(encoder, asked)
    scored = score(models, [System(name, (0, 1, 2), rule) for name, rule in rules.items()], collected.requests)
    for name, rule in rules.items():
        lm = StockpotLM(models, rule, tokenizer)
        found, count = collected.answers(scored, name), len(choices())
        assert_same_answers(found[:count], lm.loglikelihood(choices()))
        assert found[count:] == pytest.approx(lm.loglikelihood_rolling(texts()), abs=1e-4)
    with pytest.raises(BadInput, match="generate_until"):
        requests_of(encoder, prompts())


class Recorder:
    def __init__(self):
        self.seen = []

    def add_partial(self, kind, arguments, answer):
        self.seen.append((kind, tuple(arguments), answer))


def test_the_cache_hook_sees_every_answer_as_theirs_does(pools, tokenizer):
    ours, other = StockpotLM(pools["llama"][:1], ONE, tokenizer), theirs(pools["llama"][0], tokenizer, 4)
    for method, make in (("loglikelihood", choices), ("loglikelihood_rolling", texts), ("generate_until", prompts)):
        hooks = Recorder(), Recorder()
        for lm, hook in zip((ours, other), hooks, strict=True):
            lm.set_cache_hook(hook)
            getattr(lm, method)(make())
        mine, their = (sorted(hook.seen, key=lambda entry: repr(entry[:2])) for hook in hooks)
        assert [entry[:2] for entry in mine] == [entry[:2] for entry in their]
        assert len(mine) == len(make())


def test_sampling_arguments(pools, tokenizer):
    lm = StockpotLM(pools["llama"][:1], ONE, tokenizer, max_gen_toks=7)
    drawn = {"until": [], "do_sample": True, "temperature": 1.5, "top_p": 0.9, "num_beams": 1}
    asked = instances("generate_until", [("salt", drawn), ("salt", drawn), ("salt", {"until": []})])
    first = lm.generate_until(asked)
    assert first == lm.generate_until(asked)
    assert len(set(first)) == 3
    assert StockpotLM(pools["llama"][:1], ONE, tokenizer, max_gen_toks=7, seed=1).generate_until(asked)[:2] != first[:2]
    with pytest.raises(BadInput, match="'num_beams=4' is not known"):
        lm.generate_until(instances("generate_until", [("salt", {"until": [], "num_beams": 4})]))
    with pytest.raises(BadInput, match="200 tokens to generate with a model of 128"):
        lm.generate_until(instances("generate_until", [("salt", {"until": [], "max_gen_toks": 200})]))


def test_batches_too_large_for_memory_are_halved_for_good_and_the_texts_are_the_same(pools, tokenizer, monkeypatch):
    model, refused = pools["llama"][0], []
    whole = StockpotLM([model], ONE, tokenizer)
    expected = whole.generate_until(prompts())
    assert whole.halved is None
    plain = model.forward

    @functools.wraps(plain)
    def forward(input_ids, attention_mask=None, **arguments):
        if attention_mask is not None and attention_mask.numel() > 200:
            refused.append(attention_mask.shape)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(input_ids, attention_mask=attention_mask, **arguments)

    monkeypatch.setattr(model, "forward", forward)
    short = StockpotLM([model], ONE, tokenizer)
    assert short.generate_until(prompts()) == expected
    assert 0 < short.halved <= 200
    before = len(refused)
    assert before > 0
    assert short.generate_until(prompts()) == expected
    assert len(refused) == before  # what fits is known by then


def test_a_text_too_large_for_memory_is_an_error(pools, tokenizer, monkeypatch):
    def refuse(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(lm_eval_model, "write", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        StockpotLM(pools["llama"][:1], ONE, tokenizer).generate_until(prompts())


def test_chat(pools, tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[cook]{% endif %}"
    )
    ours, other = StockpotLM(pools["llama"][:1], ONE, chatty), theirs(pools["llama"][0], chatty, 1)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Salt?"}]
    for lm in (ours, other):
        assert lm.apply_chat_template(turns) == "[user]Salt?[cook]"
        assert lm.chat_template(True) == chatty.chat_template
    assert ours.tokenizer_name == other.tokenizer_name


def test_models_are_put_in_eval_mode(make, tokenizer):
    model = make("gpt2").train()
    StockpotLM([model], ONE, tokenizer)
    assert not model.training
