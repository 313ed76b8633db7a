"""Masked language models in folders: how they are recognised, and how texts become tokens and texts again."""

import json

import pytest
from transformers import AutoTokenizer, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from harness.errors import BadInput
from harness.models.heads import MASKED, SEQUENCE
from harness.models.masked import check_mask, mask_of, read_texts, write_text
from harness.models.pretrained import ZEROS, ReadAs
from harness.models.readers import reader_in
from harness.pools.folder_plan import plan_folder
from tests.models.classifier_folders import LABELS, tokenizer
from tests.systems.restorers import POSITIONS, config, letters, restorer

AS_CLASSIFIER = ReadAs(SEQUENCE, LABELS)


def reader(kind="words"):
    from transformers import AutoModelForMaskedLM

    return reader_in(restorer(kind), MASKED, AutoModelForMaskedLM.from_pretrained(restorer(kind)))


def test_a_member_that_was_saved_as_a_masked_language_model_is_one_and_says_text():
    planned = plan_folder("m0", str(restorer()), read_as=AS_CLASSIFIER)
    assert (planned.says, planned.architecture.name, planned.model.kind) == ("text", "masked_lm", "texts")
    again = planned.model.weights()
    stored = BertForMaskedLM.from_pretrained(restorer()).state_dict()
    assert all((again[name] == stored[name]).all() for name in again)


def test_a_base_is_still_the_body_of_classifiers():
    base = plan_folder("base", str(restorer()), read_as=ReadAs(SEQUENCE, LABELS, fresh=ZEROS))
    assert (base.says, base.architecture.name) == ("probabilities", "sequence_classifier")


def test_a_body_alone_is_no_masked_language_model(tmp_path):
    BertModel(config()).save_pretrained(tmp_path)
    tokenizer("bert").save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="no head"):
        plan_folder("m0", str(tmp_path), read_as=AS_CLASSIFIER)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    BertForMaskedLM(config()).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=letters().backend_tokenizer, unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="no mask"):
        check_mask(tmp_path)


@pytest.mark.parametrize(("kind", "said"), [("words", "a [MASK] film was great"), ("letters", "a _ilm was gr_at")])
def test_tokens_are_those_of_the_tokenizer_and_the_marked_ones_are_masks(kind, said):
    words = AutoTokenizer.from_pretrained(restorer(kind))
    (read,) = read_texts([said], reader(kind))
    assert list(read.ids) == words(said)["input_ids"]
    assert [read.ids[at] for at in read.marked] == [words.mask_token_id] * said.count(mask_of(reader(kind))[0])
    assert not {read.ids[at] for at in read.own} & (set(words.all_special_ids) - {words.unk_token_id})
    assert len(read.own) + len(read.marked) == len(words(said, add_special_tokens=False)["input_ids"])
    assert not read.why_not


def test_a_text_that_is_too_long_or_has_no_token_says_so():
    most = reader().most
    assert most == POSITIONS
    long, fits, empty = read_texts(["day " * (most - 1), "day " * (most - 2), " "], reader())
    assert long.why_not == f"the text has {most + 1} tokens, and the model takes {most}"
    assert not fits.why_not
    assert empty.why_not == "the text has no token"


def test_unchanged_tokens_leave_a_text_as_it_is_written():
    (read,) = read_texts(["A  GREAT film!"], reader())
    assert write_text(read, read.ids, reader()) == "A  GREAT film!"


def test_changed_tokens_are_decoded_and_unknown_words_stay_as_they_are_written():
    words = AutoTokenizer.from_pretrained(restorer())
    (read,) = read_texts(["the Zebra was [MASK] in Xanadu"], reader())
    ids = [words.convert_tokens_to_ids("great") if token == words.mask_token_id else token for token in read.ids]
    assert write_text(read, ids, reader()) == "the Zebra was great in Xanadu".replace("in", "in")
    replaced = [words.convert_tokens_to_ids("day") if place == read.own[1] else t for place, t in enumerate(ids)]
    assert write_text(read, replaced, reader()) == "the day was great in Xanadu"


def test_letters_are_put_together_again():
    (read,) = read_texts(["th_ day"], reader("letters"))
    words = AutoTokenizer.from_pretrained(restorer("letters"))
    ids = [words.convert_tokens_to_ids("e") if token == words.mask_token_id else token for token in read.ids]
    assert write_text(read, ids, reader("letters")) == "the day"


def test_an_encoder_decoder_is_none(tmp_path):
    settings = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput):
        plan_folder("m0", str(tmp_path), read_as=AS_CLASSIFIER)
