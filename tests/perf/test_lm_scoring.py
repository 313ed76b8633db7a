"""Scoring language models: shared contexts run once against lm-eval's own model, and 20 rules against none."""

import random

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.lm.lm_eval_model import StockpotLM
from harness.lm.mixing import System
from harness.lm.scoring import Request, score
from harness.systems.rules import Contrast, Gated, Linear, LogLinear

VOCABULARY = 8192


@pytest.fixture(autouse=True)
def _two_threads(_one_thread):
    """A language model's passes are large enough for both cores."""
    torch.set_num_threads(2)


def llama(seed):
    """A Llama of 24 M parameters with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=6,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval()


def word_tokenizer():
    """One token a word: a text of n words is n tokens."""
    vocabulary = {"<end>": 0} | {f"w{number}": number for number in range(1, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def words(source, count):
    return " ".join(f"w{source.randrange(1, VOCABULARY)}" for _ in range(count))


def documents(count, choices=4):
    """Pairs of a context of about 300 words and a choice of about 10."""
    source = random.Random(0)
    pairs = []
    for _ in range(count):
        context = words(source, source.randint(250, 350))
        pairs += [(context, " " + words(source, source.randint(8, 12))) for _ in range(choices)]
    return pairs


def test_long_contexts_with_four_choices(in_turn):
    model, tokenizer = llama(0), word_tokenizer()
    instances = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(documents(32))]
    ours, theirs = StockpotLM([model], Linear(torch.ones(1)), tokenizer), HFLM(model, tokenizer=tokenizer, batch_size=8)
    answers = {}

    def run(lm):
        answers[lm] = lm.loglikelihood(instances, disable_tqdm=True)

    in_turn(
        "32 documents of 300 tokens with 4 choices under a Llama of 24 M, against lm-eval's hf with batches of 8",
        lambda: run(ours),
        lambda: run(theirs),
        rounds=3,
        target=">= 3.5",
    )
    pairs = list(zip(answers[ours], answers[theirs], strict=True))
    assert max(abs(one[0] - other[0]) for one, other in pairs) < 1e-4
    assert all(one[1] == other[1] for one, other in pairs)


def rules():
    """20 systems of four members, or of three of them for negative evidence."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.softmax(torch.randn(13, 4, generator=generator), dim=-1)
    found = [Linear(row) for row in weights[:7]] + [LogLinear(row) for row in weights[7:12]]
    found.append(LogLinear(2 * weights[12] - 0.25))
    for rule in ("linear", "log_linear"):
        found += [Gated(torch.randn(4, generator=generator), torch.tensor([0.5, -0.2, a]), rule) for a in (0.1, 0.4)]
    systems = [System(f"{n}", (0, 1, 2, 3), rule) for n, rule in enumerate(found)]
    contrasts = [Contrast(0.5, "none", 0), Contrast(0.5, "contrastive", 0.1), Contrast(0.5, "dexperts", 0.9)]
    return systems + [System(f"contrast {n}", (0, 1, 2), rule) for n, rule in enumerate(contrasts)]


def test_twenty_rules_over_four_members(in_turn):
    members, systems = [llama(seed) for seed in range(4)], rules()
    assert len(systems) == 20
    tokenizer = word_tokenizer()
    requests = [Request(tuple(tokenizer.encode(a)), tuple(tokenizer.encode(b))) for a, b in documents(8)]

    def singly():
        return [score([member], [System.single("it", 0)], requests) for member in members]

    in_turn(
        "20 rules over 4 members in one pass, against the 4 members alone, one by one",
        lambda: score(members, systems, requests),
        singly,
        rounds=3,
        target=">= 0.87",
    )
