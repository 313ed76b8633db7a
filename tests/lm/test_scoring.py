"""One pass over the models against a plain float64 forward of each request, and what can go wrong on the way."""

import random
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from harness.errors import BadInput
from harness.lm.mixing import System
from harness.lm.scoring import Request, score
from harness.systems.rules import Contrast, Gated, Linear, LogLinear, Tempered, Vote
from harness.types import NotApplicable
from tests.lm.conftest import KINDS

ALL = (0, 1, 2)
RULES = {
    "linear": Linear(torch.tensor([0.2, 0.3, 0.5])),
    "log_linear": LogLinear(torch.tensor([0.2, 0.3, 0.5])),
    "against": LogLinear(torch.tensor([0.9, 0.7, -0.6])),
    "gate": Gated(torch.tensor([0.1, -0.4, 0.2]), torch.tensor([0.5, -0.3, 0.8]), "linear"),
    "gate product": Gated(torch.tensor([0.1, -0.4, 0.2]), torch.tensor([0.5, -0.3, 0.8]), "log_linear"),
    "vote": Vote(),
    "cool": Tempered(Linear(torch.tensor([0.2, 0.3, 0.5])), 1.5),
    "contrast": Contrast(0.6, "none", 0.0),
    "contrastive": Contrast(0.6, "contrastive", 0.1),
    "dexperts": Contrast(0.6, "dexperts", 0.9),
}
SYSTEMS = [System(name, ALL, rule) for name, rule in RULES.items()] + [
    System.single("second", 1),
    System("two", (2, 0), Linear(torch.tensor([0.4, 0.6]))),
]


def some_requests(vocabulary=320, documents=5, seed=0):
    """Contexts with four choices each; then what is odd: duplicates, one text split at several points, one token."""
    source = random.Random(seed)

    def tokens(count):
        return tuple(source.randrange(vocabulary) for _ in range(count))

    requests = []
    for _ in range(documents):
        context = tokens(source.randint(1, 40))
        requests += [Request(context, tokens(source.randint(1, 8))) for _ in range(4)]
    text = tokens(9)
    requests += [Request(text[:split], text[split:]) for split in (1, 4, 8, 4)]
    requests += [Request(text[:4], text[4:7]), Request(text[:1], tokens(1)), Request(tokens(150), tokens(3))]
    source.shuffle(requests)
    return requests


def plain(models, systems, requests, length=128):
    """Float64, one request at a time, full logits: log-likelihoods and greedy flags [S, R]."""
    double = [model.double() for model in models]
    totals, flags = [], []
    with torch.no_grad():
        for request in requests:
            tokens = (request.context + request.continuation)[-(length + 1) :]
            ids, targets = torch.tensor([tokens[:-1]]), torch.tensor(request.continuation)
            stacked = torch.stack([model(ids).logits[0, -len(targets) :].log_softmax(-1) for model in double])
            results = [system.rule(stacked[list(system.members)]) for system in systems]
            totals.append([float(result.gather(-1, targets[:, None]).sum()) for result in results])
            flags.append([bool((result.argmax(-1) == targets).all()) for result in results])
    for model in models:
        model.float()
    return torch.tensor(totals, dtype=torch.float64).T, torch.tensor(flags).T


def greedy_requests(model, requests, tokens=3):
    """The same contexts with what a model itself would say: some requests must be greedy."""
    found = []
    with torch.no_grad():
        for request in requests:
            said = list(request.context[-100:])
            for _ in range(tokens):
                said.append(int(model(torch.tensor([said])).logits[0, -1].argmax()))
            found.append(Request(tuple(said[:-tokens]), tuple(said[-tokens:])))
    return found


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_every_rule_gives_what_a_plain_pass_gives(pools, kind, packed):
    requests = some_requests()
    requests += greedy_requests(pools[kind][1], requests[:6])
    expected, flags = plain(pools[kind], SYSTEMS, requests)
    found = score(pools[kind], SYSTEMS, requests, packed=packed, batch_tokens=300)
    assert found.log_likelihood.dtype == torch.float64
    torch.testing.assert_close(found.log_likelihood, expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(found.greedy, flags)
    assert flags[SYSTEMS.index(next(s for s in SYSTEMS if s.name == "second"))].sum() >= 6
    assert found.work.truncated == 1
    assert found.work.packed is packed


def test_neither_the_order_nor_the_batch_nor_eager_attention_matters(pools, make):
    models, requests = pools["llama"], some_requests(seed=1)
    expected = score(models, SYSTEMS, requests).log_likelihood
    eager = [make("llama", seed, attention="eager") for seed in range(3)]
    for found in (
        score(models, SYSTEMS, requests, batch_tokens=1),
        score(models, SYSTEMS, requests, batch_tokens=100_000),
        score(eager, SYSTEMS, requests, packed=True),
    ):
        torch.testing.assert_close(found.log_likelihood, expected, rtol=1e-5, atol=1e-4)
    turned = score(models, SYSTEMS, requests[::-1])
    torch.testing.assert_close(turned.log_likelihood.flip(1), expected, rtol=1e-5, atol=1e-4)


def test_all_the_weight_on_one_member_is_that_member_bit_for_bit(pools):
    first = torch.tensor([1.0, 0.0, 0.0])
    systems = [System("linear", ALL, Linear(first)), System("log", ALL, LogLinear(first)), System.single("it", 0)]
    found = score(pools["llama"], systems, some_requests(), per_token=True)
    for values in (found.log_likelihood, found.greedy, found.token_log_probs):
        assert torch.equal(values[0], values[2])
        assert torch.equal(values[1], values[2])
    alone = score(pools["llama"][:1], [System.single("it", 0)], some_requests())
    assert torch.equal(alone.log_likelihood[0], found.log_likelihood[2])


def test_tokens_add_up_to_their_request(pools):
    requests = some_requests()
    found = score(pools["llama"], SYSTEMS, requests, per_token=True)
    for r, (start, end) in enumerate(zip(found.starts[:-1], found.starts[1:], strict=True)):
        assert end - start == len(requests[r].continuation)
        total = found.token_log_probs[:, start:end].double().sum(dim=1)
        torch.testing.assert_close(total, found.log_likelihood[:, r], rtol=1e-12, atol=1e-12)
    assert found.answers("two")[3] == (float(found.log_likelihood[11, 3]), bool(found.greedy[11, 3]))


def test_shared_contexts_are_run_once_and_counted(pools):
    context = tuple(range(60))
    requests = [Request(context, (100 + choice, 7)) for choice in range(4)] * 3
    work = score(pools["llama"], SYSTEMS, requests, packed=True).work
    assert work.tokens_alone == 12 * 61
    assert work.tokens_forwarded == 60 + 4
    assert work.forward_seconds > 0
    assert work.combine_seconds > 0


def test_one_text_split_at_several_points_is_run_once_without_packing(pools):
    text = tuple(range(40))
    requests = [Request(text[:split], text[split:]) for split in range(1, 40)]
    work = score(pools["gpt2"], SYSTEMS, requests, packed=False).work
    assert work.tokens_forwarded == 39


def test_nothing_to_score(pools):
    found = score(pools["llama"], SYSTEMS, [])
    assert found.log_likelihood.shape == (len(SYSTEMS), 0)


def test_progress_ends_with_all(pools):
    seen = []
    score(pools["llama"], SYSTEMS, some_requests(), batch_tokens=60, progress=lambda *now: seen.append(now))
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (27, 27)


def test_an_adapter_is_a_member(make):
    adapter = LoraConfig(target_modules=["q_proj", "v_proj", "lm_head"], r=2, init_lora_weights=False)
    model = get_peft_model(make("llama"), adapter).eval()
    found = score([model], [System.single("it", 0)], some_requests())
    expected, _ = plain([model.merge_and_unload()], [System.single("it", 0)], some_requests())
    torch.testing.assert_close(found.log_likelihood, expected, rtol=1e-5, atol=1e-4)
    assert found.work.packed


# No setting of the scorer changes what a model says


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_that_of_the_request_alone_whatever_the_batch_and_the_packing(make, kind):
    models, systems, requests = [make(kind)], [System.single("it", 0)], some_requests(documents=3)
    expected, flags = plain(models, systems, requests)
    for packed, batch_tokens in ((None, 100_000), (False, 100_000), (None, 1), (True, 300)):
        try:
            found = score(models, systems, requests, packed=packed, batch_tokens=batch_tokens)
        except BadInput as error:  # which is no number
            assert packed
            assert "cannot run packed" in str(error)
            assert not score(models, systems, requests).work.packed
            continue
        torch.testing.assert_close(found.log_likelihood, expected, rtol=1e-5, atol=1e-4)
        assert torch.equal(found.greedy, flags)


def test_a_model_that_looks_ahead_is_refused(pools, make):
    systems = [System.single("it", 0), System.single("other", 1)]
    with pytest.raises(NotApplicable, match="model 1 is not causal: a token that follows moves"):
        score([pools["llama"][0], make("both ways")], systems, some_requests())


# Packing is tried before it is believed


def test_packing_goes_on_where_it_agrees(pools):
    for kind in ("llama", "gpt2", "qwen2"):
        work = score(pools[kind], SYSTEMS, some_requests()).work
        assert work.packed
        assert work.why_plain == ""


def test_a_sliding_window_is_noticed_and_run_plainly(make):
    """It is not in the tree mask: packed, such a model sees too much."""
    models, systems = [make("window")], [System.single("it", 0)]
    expected, _ = plain(models, systems, some_requests())
    found = score(models, systems, some_requests())
    assert not found.work.packed
    assert "apart" in found.work.why_plain
    torch.testing.assert_close(found.log_likelihood, expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(BadInput, match=r"packed: model 0 cannot run packed: .* apart"):
        score(models, systems, some_requests(), packed=True)


def test_what_a_system_says_does_not_depend_on_models_that_it_does_not_have(pools, make):
    """Bit for bit, though they may slide a window, be wider, or change with the length."""
    systems = [System.single("second", 1), System("all", ALL, RULES["log_linear"])]
    alone = score(pools["llama"], systems, some_requests())
    others = [make("window"), make("llama", 7, width=64), make("longrope")]
    models = [others[0], *pools["llama"], *others[1:]]
    moved = [System(s.name, tuple(k + 1 for k in s.members), s.rule) for s in systems]
    more = [System.single("window", 0), System("both", (0, 2), Linear(torch.tensor([0.5, 0.5])))]
    more += [System.single("wide", 4), System.single("long", 5)]
    found = score(models, more + moved, some_requests())
    assert found.work.packed
    assert found.work.why_plain.startswith("model 0: ")
    assert torch.equal(found.log_likelihood[-2:], alone.log_likelihood)
    assert torch.equal(found.greedy[-2:], alone.greedy)
    expected, _ = plain(models, more, some_requests())
    torch.testing.assert_close(found.log_likelihood[:4], expected, rtol=1e-5, atol=1e-4)


def test_a_model_that_no_system_has_is_not_run(pools):
    def absent(**inputs):
        raise AssertionError

    absent.config, absent.get_output_embeddings = pools["llama"][0].config, pools["llama"][0].get_output_embeddings
    systems = [System.single("second", 1)]
    found = score([absent, pools["llama"][1]], systems, some_requests(), packed=False)
    alone = score(pools["llama"][1:2], [System.single("second", 0)], some_requests(), packed=False)
    assert torch.equal(found.log_likelihood, alone.log_likelihood)


def test_a_model_that_refuses_the_mask_is_run_plainly(pools):
    def refusing(input_ids, use_cache=False):
        return pools["llama"][0](input_ids)

    found = score([refusing], [System.single("it", 0)], some_requests(), max_length=128)
    assert not found.work.packed
    assert "refuses a tree mask" in found.work.why_plain
    expected = score(pools["llama"][:1], [System.single("it", 0)], some_requests())
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-5, atol=1e-4)


def test_half_precision_is_summed_in_float32_and_may_pack(make):
    model, requests = make("llama").bfloat16(), some_requests()
    found = score([model], [System.single("it", 0)], requests, packed=False, batch_tokens=1)
    with torch.no_grad():
        for r, request in enumerate(requests):
            tokens = (request.context + request.continuation)[-129:]
            logits = model(torch.tensor([tokens[:-1]])).logits[0, -len(request.continuation) :]
            each = torch.log_softmax(logits.float(), -1).gather(-1, torch.tensor(request.continuation)[:, None])
            assert float(found.log_likelihood[0, r]) == pytest.approx(float(each.double().sum()), abs=0.3)
    assert score([model], [System.single("it", 0)], requests).work.packed


# Memory


class Limited:
    """A model that runs out of memory above so many tokens."""

    def __init__(self, model, tokens, error):
        self.model, self.tokens, self.error, self.calls = model, tokens, error, 0
        self.config, self.device, self.dtype = model.config, model.device, model.dtype

    def __call__(self, input_ids, **arguments):
        self.calls += 1
        if input_ids.numel() > self.tokens:
            raise self.error
        return self.model(input_ids, **arguments)


CPU_ERROR = RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), CPU_ERROR], ids=["cuda", "cpu"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_out_of_memory_halves_the_batch_and_goes_on(pools, error, packed):
    requests = some_requests(documents=20)
    expected = score(pools["llama"], SYSTEMS, requests, packed=packed)
    models = [*pools["llama"][:2], Limited(pools["llama"][2], 150, error)]
    found = score(models, SYSTEMS, requests, packed=packed, batch_tokens=1000)
    assert found.work.halvings >= 3
    assert found.work.batch_tokens <= 150
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-5, atol=1e-4)


def test_a_tree_too_large_for_memory_is_cut(pools):
    context = tuple(range(60))
    requests = [Request(context, (100 + choice, *range(50))) for choice in range(4)]
    models = [Limited(pools["llama"][0], 115, CPU_ERROR)]
    found = score(models, [System.single("it", 0)], requests, packed=True)
    expected = score(pools["llama"], [System.single("it", 0)], requests, packed=False)
    assert found.work.halvings > 0
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-5, atol=1e-4)


def test_what_does_not_fit_alone_is_an_error_and_other_errors_are_not_memory(pools):
    for error in (CPU_ERROR, RuntimeError("shapes do not match")):
        models = [Limited(pools["llama"][0], 3, error)]
        with pytest.raises(RuntimeError, match=r"memory|shapes"):
            score(models, [System.single("it", 0)], some_requests(), packed=False)
        assert models[0].calls < 20


# Errors, never a number


def test_two_vocabularies_are_named(pools, make):
    with pytest.raises(NotApplicable, match=r"model 0 \(LlamaForCausalLM\).*320.*model 1 \(GPT2LMHeadModel\).*100"):
        score([pools["llama"][0], make("gpt2", vocabulary=100)], [System.single("it", 0)], some_requests())


def test_nan_weights_are_named(pools, make):
    broken = make("llama", 5)
    broken.model.layers[1].mlp.up_proj.weight.data[3, 3] = torch.nan
    with pytest.raises(NotApplicable, match="model 1 gives logits that are not finite"):
        score([pools["llama"][0], broken], [System.single("it", 1)], some_requests())


def test_a_token_of_no_probability_is_minus_infinity(pools):
    def masked(input_ids, **arguments):
        logits = pools["llama"][0](input_ids, **arguments).logits.clone()
        logits[..., 7] = -torch.inf
        return SimpleNamespace(logits=logits)

    found = score([masked], [System.single("it", 0)], [Request((1, 2), (7,)), Request((1, 2), (8,))])
    assert found.log_likelihood[0, 0] == -torch.inf
    assert found.log_likelihood[0, 1].isfinite()


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (Request((), (1,)), "request 1: the context has no tokens"),
        (Request((1,), ()), "request 1: the continuation has no tokens"),
        (Request((1,), (1,) * 129), "129 tokens to score with a model of 128"),
        (Request((1,), (320,)), "token 320 with a vocabulary of 320"),
    ],
)
def test_a_request_that_cannot_be_scored_is_named(pools, request_, problem):
    with pytest.raises(BadInput, match=problem):
        score(pools["llama"], SYSTEMS, [Request((1,), (2,)), request_])


def test_training_mode_and_no_models(pools, make):
    with pytest.raises(BadInput, match=r"model 0: .*training mode.*eval"):
        score([make("gpt2").train()], [System.single("it", 0)], some_requests())
    with pytest.raises(BadInput, match="no models"):
        score([], [], some_requests())


def test_a_length_of_ones_own_cuts_contexts_on_the_left(pools):
    request = Request(tuple(range(50)), (7, 8, 9))
    cut = Request(request.context[-18:], request.continuation)
    found = score(pools["llama"], SYSTEMS, [request], max_length=20)
    assert found.work.truncated == 1
    assert torch.equal(found.log_likelihood, score(pools["llama"], SYSTEMS, [cut]).log_likelihood)
