"""Mask-predict: what it makes of texts is what a plain loop over transformers makes, call for call."""

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from harness.models.heads import MASKED
from harness.models.masked import read_texts
from harness.models.readers import reader_in
from harness.systems.mask_predict import mask_predict
from tests.systems.restorers import SAID, marked, plain_mask_predict, restorer

KINDS = ("words", "letters")


@pytest.fixture(params=KINDS)
def model(request):
    folder = restorer(request.param)
    module = AutoModelForMaskedLM.from_pretrained(folder).eval()
    texts = [marked(said, request.param) for said in SAID]
    return module, reader_in(folder, MASKED, module), AutoTokenizer.from_pretrained(folder), texts


@pytest.mark.parametrize("rounds", [0, 1, 2, 5, 9])
def test_a_plain_loop_gives_the_same_texts_with_the_same_calls(model, rounds):
    module, reader, words, texts = model
    found = mask_predict(module, reader, texts, rounds, 0.0)
    expected = [plain_mask_predict(module, words, text, rounds) for text in texts]
    assert list(zip(found.texts, found.calls.tolist(), strict=True)) == expected
    assert found.why_not == [""] * len(texts)


def test_zero_rounds_are_one_shot(model):
    module, reader, _, texts = model
    found = mask_predict(module, reader, texts, 0, 0.0)
    has_marks = [bool(text.marked) for text in read_texts(texts, reader)]
    assert found.calls.tolist() == list(map(int, has_marks))
    assert [before == after for before, after in zip(texts, found.texts, strict=True)] == [not m for m in has_marks]


def test_it_stops_when_nothing_changes(model):
    """A model that does not look at the text says the same in every round: one round shows that, and no more run."""
    module, reader, _, texts = model
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "word_embeddings" in name or "decoder.weight" in name:
                parameter.zero_()
    found = mask_predict(module, reader, texts, 9, 0.0)
    marks = [len(text.marked) for text in read_texts(texts, reader)]
    assert found.calls.tolist() == [min(n, 2) for n in marks]  # of one token none is left to be doubted
    assert found.texts == mask_predict(module, reader, texts, 0, 0.0).texts


def test_no_round_calls_more_than_the_schedule_says(model):
    module, reader, _, texts = model
    for rounds in (0, 1, 3, 6):
        calls = mask_predict(module, reader, texts, rounds, 0.0).calls.tolist()
        for text, count in zip(read_texts(texts, reader), calls, strict=True):
            total = len(text.marked)
            most = sum(total * (rounds + 1 - t) // (rounds + 1) > 0 for t in range(rounds + 1))
            assert count <= most


def test_a_text_has_what_it_has_in_any_company(model):
    module, reader, _, texts = model
    together = mask_predict(module, reader, texts, 3, 0.3)
    for row, text in enumerate(texts):
        alone = mask_predict(module, reader, [text], 3, 0.3)
        assert (alone.texts[0], int(alone.calls[0])) == (together.texts[row], int(together.calls[row]))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_least_probable_tokens_are_doubted_too(model, share):
    """A brute-force choice of the tokens, masked by hand, gives the same text in one call less."""
    module, reader, words, texts = model
    found = mask_predict(module, reader, texts, 2, share)
    special = set(words.all_special_ids)
    known = torch.tensor([token in special or token >= len(words) for token in range(module.config.vocab_size)])
    for row, text in enumerate(texts):
        tokens = words(text, return_tensors="pt")["input_ids"][0]
        with torch.inference_mode():
            said = torch.log_softmax(module(tokens[None]).logits[0].masked_fill(known, -torch.inf), -1)
        own = [at for at, token in enumerate(tokens.tolist()) if token not in special or token == words.unk_token_id]
        doubted = sorted(own, key=lambda at: (float(said[at, tokens[at]]), at))[: int(share * len(own))]
        given = tokens.clone()
        given[doubted] = words.mask_token_id
        inner = words.decode([token for token in given.tolist() if token not in special - {words.mask_token_id}])
        assert words(inner)["input_ids"] == given.tolist()
        expected, calls = plain_mask_predict(module, words, inner, 2)
        assert (found.texts[row], int(found.calls[row])) == (expected, calls + 1)


def test_what_a_model_cannot_take_stays_as_it_is_with_a_reason_and_no_call(model):
    module, reader, _, texts = model
    found = mask_predict(module, reader, ["", texts[0], texts[0] * 40], 2, 0.5)
    assert [bool(reason) for reason in found.why_not] == [True, False, True]
    assert (found.texts[0], found.texts[2]) == ("", texts[0] * 40)
    assert found.calls.tolist()[::2] == [0, 0]
