"""Classifiers from folders: transformers' own scores, however their examples are batched, cut, padded or stored."""

import json
from functools import cache, partial

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

import harness.kinds  # noqa: F401 (which says how their networks are run)
from harness.errors import BadInput
from harness.models.classifiers import FEELS_PADDING, logits_of_texts
from harness.models.configuration import without_values
from harness.models.forward import as_read_by
from harness.models.heads import SEQUENCE
from harness.models.readers import cut, positions_of, reader_in, tokens_of
from harness.systems.parts import MemberPart
from harness.types import Member
from tests.examples import PROFILE, examples
from tests.models import families
from tests.models.classifier_folders import (
    FAMILIES,
    IMAGES,
    LABELS,
    POSITIONS,
    TEXTS,
    batch_of,
    image_processor,
    picture,
    plan,
    save,
    save_reader,
    text,
)

WORDS = st.sampled_from(["a", "film", "great", "sleeply", "ü", "日", "!", "unknown", "\n", "I"])
SOME = st.lists(WORDS, max_size=70).map(" ".join)
SECOND = SOME.filter(bool)
"""(A pipeline takes a pair with an empty second text for one text; a tokenizer that is given many pairs does not.)"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each family."""
    place = tmp_path_factory.mktemp("folders")
    return {family: save(place / family, family) for family in FAMILIES}


def part_of(folder, family, **settings):
    planned = plan(folder, family, **settings)
    return MemberPart(Member("m", planned.architecture, planned.model.weights(), "start", 0, {}, planned.digests[0]))


def said(pipe, given):
    """The logarithms of a pipeline's probabilities, in the order of the labels; long texts are cut."""
    found = {each["label"]: each["score"] for each in pipe(given, top_k=None)}
    return torch.tensor([found[label] for label in LABELS]).log()


@cache
def of_texts(folder):
    """transformers' pipeline on one text, or a pair of texts, cut."""
    words = AutoTokenizer.from_pretrained(folder, model_max_length=limit_of(folder))
    pipe = transformers.pipeline("text-classification", str(folder), tokenizer=words, device="cpu")
    cutting = partial(pipe, truncation=True)
    return cache(lambda parts: said(cutting, dict(zip(("text", "text_pair"), parts, strict=False))))


def limit_of(folder):
    return POSITIONS - 2 if folder.name.startswith("roberta") else POSITIONS


@pytest.mark.parametrize("family", TEXTS)
@examples(6)
@given(texts=st.lists(st.tuples(SOME, SECOND), min_size=1, max_size=40), pairs=st.booleans(), seed=st.integers(0, 99))
def test_texts_score_as_in_transformers_one_at_a_time_in_any_batch(
    folders, tmp_path_factory, family, texts, pairs, seed
):
    folder = folders[family]
    part, oracle = part_of(folder, family), of_texts(folder)
    given_ = [parts if pairs else parts[:1] for parts in texts]
    alone = {parts: oracle(parts) for parts in set(given_) if family != "llama" or any(map(str.strip, parts))}
    order = torch.randperm(len(given_), generator=torch.Generator().manual_seed(seed)).tolist()
    batch = batch_of([text(*given_[row]) for row in order], tmp_path_factory.mktemp("batch"))
    with torch.inference_mode():
        found = torch.cat([part.log_probs(each) for each in batch.split(7 + seed)])
    for row, ours in zip(order, found, strict=True):
        if given_[row] in alone:
            torch.testing.assert_close(ours, alone[given_[row]], rtol=0, atol=1e-5)


EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter
PICTURES = {
    "as large": picture(0, (16, 16)), "wide": picture(1, (50, 9)), "grey": picture(2, mode="L"),
    "with alpha": picture(3, mode="RGBA"), "of a palette": picture(4, mode="P"), "of one bit": picture(5, mode="1"),
    "turned": picture(6, (30, 12), kind="JPEG", exif=EXIF), "of CMYK": picture(7, mode="CMYK", kind="JPEG"),
}  # fmt: skip


@pytest.mark.parametrize("family", IMAGES)
def test_images_score_as_in_transformers_one_at_a_time_in_any_batch(folders, tmp_path, family):
    part = part_of(folders[family], family)
    pipe = transformers.pipeline("image-classification", str(folders[family]), device="cpu")
    files = []
    for row, content in enumerate(PICTURES.values()):
        files.append(tmp_path / f"{row}.png")
        files[-1].write_bytes(content)
    alone = torch.stack([said(pipe, str(file)) for file in files])
    batch = batch_of(list(PICTURES.values()), tmp_path)
    for rows in (torch.arange(len(batch)), torch.randperm(len(batch))):
        with torch.inference_mode():
            for size in (1, 3, len(batch)):
                found = torch.cat([part.log_probs(each) for each in batch[rows].split(size)])
                torch.testing.assert_close(found, alone[rows], rtol=0, atol=1e-5)


def test_an_image_is_turned_and_grey_is_made_coloured_before_it_is_seen(folders, tmp_path):
    part = part_of(folders["vit"], "vit")
    seen = part.log_probs(batch_of([PICTURES["turned"]], tmp_path))
    plain = picture(6, (30, 12), kind="JPEG")
    assert not torch.allclose(seen, part.log_probs(batch_of([plain], tmp_path)), atol=1e-3)


def test_a_text_without_any_token_is_read_as_the_end_of_a_text(folders, tmp_path):
    part = part_of(folders["llama"], "llama")
    module = AutoModelForSequenceClassification.from_pretrained(folders["llama"])
    with torch.inference_mode():
        end = module(input_ids=torch.tensor([[3]])).logits.log_softmax(-1)[0]
        found = part.log_probs(batch_of([text("a film"), text(""), text("great")], tmp_path))
    torch.testing.assert_close(found[1], end, rtol=0, atol=1e-6)
    assert module.config.pad_token_id is None


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_tokenizer_that_pads_on_the_left_changes_nothing(folders, tmp_path, family):
    folder = save(tmp_path / "left", family)
    save_reader(folder, family, padding_side="left")
    batch = batch_of([text("a"), text("a great film !"), text("")], tmp_path)
    one, other = (part_of(each, family).log_probs(batch) for each in (folder, folders[family]))
    assert torch.equal(one, other)


def test_the_end_of_a_text_is_found_where_texts_end_in_the_token_that_others_pad_with(tmp_path):
    """A decoder without padding token, whose tokenizer names none: no token of a text may be taken for it."""
    folder = save(tmp_path / "llama", "llama")
    part, module = part_of(folder, "llama"), AutoModelForSequenceClassification.from_pretrained(folder)
    words = ["a film", "a film [SEP]", "[SEP] [SEP]", "a great great day"]
    tokens = tokens_of([[each] for each in words], plan(folder, "llama").architecture.options[1][1])["input_ids"]
    assert any(each[-1] == 3 for each in tokens)
    with torch.inference_mode():
        alone = torch.cat([module(input_ids=torch.tensor([each])).logits for each in tokens]).log_softmax(-1)
        found = part.log_probs(batch_of([text(each) for each in words], tmp_path))
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


# All families of transformers: how many tokens they take, and what padding does to them.

HARD = {  # what a tiny configuration cannot be made of by the settings that families share
    "cohere_compass_text", "deepseek_v2", "esmc", "gemma3", "jamba", "layoutlmv2", "layoutlmv3", "lilt", "luke",
    "minicpm3", "mistral4", "modernvbert", "perceiver", "qwen3_5", "qwen3_5_text", "qwen3_next", "squeezebert", "t5",
    "t5gemma", "t5gemma2", "ultravbert", "zamba", "zamba2", "canine", "funnel", "convbert",
}  # fmt: skip
FEW = ["albert", "bert", "deberta-v2", "electra", "esm", "fnet", "gpt2", "ibert", "mobilebert", "mpnet",
       "nystromformer", "xlm-roberta", "xlnet", "yoso"]  # fmt: skip


def tiny(kind):
    plain = AutoConfig.for_model(kind)
    known = {**plain.to_dict(), **plain.attribute_map}
    chosen = {name: value for name, value in families.SMALL.items() if name in known}
    own = {name: value for name, value in families.SETTINGS.get(kind, {}).items() if name != "is_decoder"}
    config = type(plain)(**{**chosen, **own})
    config.id2label = dict(enumerate(LABELS))
    config.pad_token_id = 1
    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in module.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return module


CHECKED = FEW if PROFILE == "fixed" else sorted(set(SEQUENCE.kinds) - HARD)


@pytest.mark.parametrize("kind", CHECKED)
def test_a_family_takes_as_many_tokens_as_it_has_positions_and_feels_padding_where_we_say(kind):
    module = tiny(kind)
    most = positions_of(module)
    ids = torch.randint(3, 60, (2, most or 20), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 2
    with torch.inference_mode():
        assert torch.isfinite(module(input_ids=ids).logits).all()
        if kind in FEW and most:  # which have a table of positions
            with pytest.raises((IndexError, RuntimeError)):
                module(input_ids=torch.cat([ids, ids[:, -1:]], dim=1))
        mask = torch.ones_like(ids)
        mask[0, 9:], padded = 0, ids.clone()
        padded[0, 9:] = 1
        padded[0, 8], ids[0, 8] = 2, 2
        alone = module(input_ids=ids[:1, :9]).logits
        masked = {} if kind == "fnet" else {"attention_mask": mask}
        together = module(input_ids=padded, **masked).logits[:1]
    assert (kind in FEELS_PADDING) == (not torch.allclose(alone, together, atol=1e-4))


@pytest.mark.parametrize("kind", ["fnet", "mobilebert", "xlnet"])
def test_texts_of_a_family_that_feels_padding_score_as_they_do_alone(kind, tmp_path):
    module = tiny(kind)
    module.save_pretrained(tmp_path)
    save_reader(tmp_path, "bert")
    network = as_read_by("texts", module, reader_in(tmp_path, SEQUENCE, module))
    batch = batch_of([text("a " * count) for count in (1, 7, 3, 7, 1)], tmp_path)
    with torch.inference_mode():
        together = logits_of_texts(network, batch)
        alone = torch.cat([logits_of_texts(network, row) for row in batch.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("own", "positions", "most"), [(None, 40, 40), (12, 40, 12), (512, 40, 40)])
def test_texts_are_cut_as_the_tokenizer_says_and_never_beyond_the_positions(tmp_path, own, positions, most):
    folder = save(tmp_path / "bert", "bert", max_position_embeddings=positions)
    save_reader(folder, "bert", **({"model_max_length": own} if own else {}))
    reader = plan(folder, "bert").architecture.options[1][1]
    texts = [["a " * count] for count in (most - 2, most - 1, 200)]
    assert [len(each) for each in tokens_of(texts, reader)["input_ids"]] == [most, most, most]
    assert cut(texts, reader) == 2


def test_positions_are_asked_of_a_network_without_values(folders):
    for family, most in (("bert", POSITIONS), ("roberta", POSITIONS - 2), ("llama", POSITIONS)):
        config = AutoConfig.from_pretrained(folders[family])
        assert positions_of(without_values(config, SEQUENCE)) == most


# What is refused.


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "the tokenizer is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "the tokenizer cannot be read"),
    ],
)
def test_a_folder_whose_texts_cannot_be_read_says_so(tmp_path, spoil, words):
    folder = save(tmp_path / "bert", "bert")
    spoil(folder)
    with pytest.raises(BadInput, match=words):
        plan(folder, "bert")


def test_a_folder_whose_images_cannot_be_read_says_so(tmp_path):
    folder = save(tmp_path / "vit", "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "NoSuchProcessor"}))
    with pytest.raises(BadInput, match="the image processor cannot be read"):
        plan(folder, "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(BadInput, match="the image processor cannot be read"):
        plan(folder, "vit")


def test_a_folder_of_another_kind_is_refused(folders):
    with pytest.raises(BadInput, match="'vit' is no text classifier"):
        plan(folders["vit"], "bert")
    with pytest.raises(BadInput, match="'bert' is no image classifier"):
        plan(folders["bert"], "vit")
    assert image_processor("vit").size == {"height": 16, "width": 16}
    assert AutoModelForImageClassification.from_pretrained(folders["vit"]).config.num_labels == 3
