"""Models with other tokens than one another get the rows that mergekit gives them, token for token."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.common import ModelReference
from mergekit.tokenizer.build import build_tokenizer
from mergekit.tokenizer.config import ModelTokenEmbedding, TokenEmbeddingConfig, ZeroEmbedding
from mergekit.tokenizer.embed import PermutedVocabulary
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from harness.errors import BadInput
from harness.recipes import row_files
from harness.recipes.companions import read_companions, write_companions
from harness.recipes.references import Reference
from harness.recipes.token_sources import TokenizerSource, TokenRow
from harness.recipes.vocabularies import Model, align_rows, align_tokens, has_rows
from harness.streaming.plan import Adapted
from tests.examples import examples
from tests.recipes.tiny_folders import SPECIAL, mergekit_merge, tensors_in, values, word_tokenizer

WIDTH = 3
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WORDS = ["a", "b", "c", "d", "e"]


@dataclass
class Made:
    """A model's folder: its tokens, rows that no token has, and the type of its weights."""

    words: list[str]
    added: list[str] = field(default_factory=list)
    spare: int = 0
    dtype: torch.dtype = torch.float32
    tied: bool = False

    @property
    def tokens(self):
        return [*SPECIAL, *self.words, *(word for word in self.added if word not in self.words)]

    def write(self, folder, seed):
        rows = len(self.tokens) + self.spare
        config = {"vocab_size": rows, "tie_word_embeddings": self.tied, "architectures": ["LlamaForCausalLM"]}
        LlamaConfig(**config).save_pretrained(folder)
        word_tokenizer(self.words, self.added).save_pretrained(folder)
        draw = torch.Generator().manual_seed(seed)
        names = [EMBEDDING] if self.tied else [EMBEDDING, HEAD]
        tensors = {name: torch.randn(rows, WIDTH, generator=draw).to(self.dtype) for name in names}
        save_file({**tensors, "model.norm.weight": torch.ones(WIDTH)}, folder / "model.safetensors")


def model(folder, **more):
    config = json.loads((folder / "config.json").read_text())
    return Model(folder, config, {**tensors_in(folder / "model.safetensors"), **more})


def reference(folder):
    return Reference(str(folder), folder)


def put(root, made):
    """Folders of models by their paths."""
    folders = [root / f"m{number}" for number in range(len(made))]
    for seed, (folder, each) in enumerate(zip(folders, made, strict=True)):
        each.write(folder, seed)
    return {str(folder): model(folder) for folder in folders}


def ours(models, base, asked, scratch):
    """Each model's rows by token, those of padding, and all that was returned."""
    scratch.mkdir()
    source = None if isinstance(asked.source, str) else asked.source.folder
    aligned = align_tokens(models, base, asked, scratch, source=source)
    donor = models[base or next(iter(models))].folder
    ids = AutoTokenizer.from_pretrained(aligned.tokenizer or donor).get_vocab()
    return ids, aligned


def mergekits(models, base, asked, names=(EMBEDDING, HEAD)):
    """mergekit's tokens, and its rows of some tensors for each model."""
    named = {text: ModelReference.parse(text) for text in models}
    config = {}
    for token, said in asked.tokens.items():
        source = named[said.model.text] if said.model else ZeroEmbedding(kind="zero")
        if said.token is not None or said.token_id is not None:
            source = ModelTokenEmbedding(kind="model_token", model=source, token=said.token, token_id=said.token_id)
        config[token] = TokenEmbeddingConfig(source=source, force=said.force)
    source = asked.source if isinstance(asked.source, str) else named[asked.source.text]
    info = build_tokenizer(named[base] if base else None, list(named.values()), source, False, list(config))
    task = PermutedVocabulary.model_construct(tokens=config, pad_to_multiple_of=asked.pad_to_multiple_of,
                                              base_model=named[base] if base else None, vocabulary_axis=0)  # fmt: skip
    rows = {}
    for name in names:
        made = task.execute(info, {named[text]: values(each.tensors[name]).float() for text, each in models.items()})
        rows[name] = {text: made[each] for text, each in named.items()}
    return info.tokenizer.get_vocab(), rows


@st.composite
def cases(draw):
    """Models, the base among them or none, and what a recipe says of their tokenizer."""
    words = st.lists(st.sampled_from(WORDS), unique=True, max_size=4)
    made = draw(st.lists(st.builds(Made, words, words, st.integers(0, 2)), min_size=2, max_size=3))
    base = draw(st.sampled_from([None, *range(len(made))]))
    source = draw(st.sampled_from(["union", "base", *range(len(made))]))
    rules = {}
    donor = made[base or 0].tokens  # with "base" mergekit takes tokens that it adds to be the base's own
    named = [*WORDS, "<s>", "new"] if source != "base" else donor
    for token in draw(st.lists(st.sampled_from(named), unique=True, max_size=2)):
        having = [number for number, each in enumerate(made) if token in each.tokens]
        owner = draw(st.sampled_from(range(len(made))))
        kinds = ["zero", "other", "number", *(["own"] if having else [])]
        match draw(st.sampled_from(kinds)):
            case "zero":
                rule = {"zero": True}
            case "other":
                rule = {"model": owner, "token": draw(st.sampled_from(made[owner].tokens))}
            case "number":
                rule = {"model": owner, "token_id": draw(st.integers(0, len(made[owner].tokens) - 1))}
            case "own":
                rule = {"model": draw(st.sampled_from(having))}
        rules[token] = {**rule, "force": draw(st.booleans())}
    return made, base, source, rules, draw(st.sampled_from([None, 1, 8]))


@given(case=cases())
@examples(25)
def test_rows_are_those_of_mergekit(case, tmp_path_factory):
    made, base, source, rules, multiple = case
    root = tmp_path_factory.mktemp("case")
    models = put(root, made)
    texts = list(models)
    tokens = {
        token: TokenRow(**{**said, "model": reference(Path(texts[said["model"]])) if "model" in said else None})
        for token, said in rules.items()
    }
    asked = TokenizerSource(source if isinstance(source, str) else reference(Path(texts[source])), tokens, multiple)
    chosen = None if base is None else texts[base]
    ids, aligned = ours(models, chosen, asked, root / "scratch")
    their_ids, rows = mergekits(models, chosen, asked)
    assert ids.keys() == their_ids.keys()
    order = [their_ids[token] for token in sorted(ids, key=ids.__getitem__)]
    for name in (EMBEDDING, HEAD):
        for text in texts:
            mine, theirs = values(aligned.tensors[text][name]).float(), rows[name][text]
            assert len(mine) == len(theirs) == aligned.rows
            torch.testing.assert_close(mine[: len(ids)], theirs[order], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(mine[len(ids) :], theirs[len(ids) :], rtol=1e-5, atol=1e-6)
    for text, each in models.items():
        assert aligned.tensors[text]["model.norm.weight"] == each.tensors["model.norm.weight"]


def test_a_merge_has_the_tokens_and_the_tensors_of_mergekits(tmp_path):
    """Of the mean of two models, with all that lies beside it."""
    models = {}
    for number, words in enumerate((["a", "b"], ["b", "c", "d"])):
        folder = tmp_path / f"m{number}"
        config = LlamaConfig(vocab_size=2 + len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                             intermediate_size=8, tie_word_embeddings=False)  # fmt: skip
        torch.manual_seed(number)
        LlamaForCausalLM(config).save_pretrained(folder)
        word_tokenizer(words).save_pretrained(folder)
        models[str(folder)] = model(folder)
    first = next(iter(models))
    recipe = {"merge_method": "linear", "dtype": "float32", "tokenizer_source": "union", "base_model": first,
              "models": [{"model": text, "parameters": {"weight": 1.0}} for text in models]}  # fmt: skip
    theirs = mergekit_merge(recipe, tmp_path / "theirs")
    ids, aligned = ours(models, first, TokenizerSource("union", {}), tmp_path / "scratch")
    (tmp_path / "ours").mkdir()
    beside = read_companions(Path(first), models[first].config, dtype="F32", vocabulary=aligned.rows,
                             token_ids=aligned.token_ids, tokenizer=aligned.tokenizer)  # fmt: skip
    write_companions(tmp_path / "ours", beside)
    one, other = (aligned.tensors[text] for text in models)
    mean = {name: ((values(one[name]) + values(other[name])) / 2).float() for name in one}
    save_file(mean, tmp_path / "ours" / "model.safetensors")
    one, other = (LlamaForCausalLM.from_pretrained(folder) for folder in (tmp_path / "ours", theirs))
    words, their_words = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "ours", theirs))
    assert words.get_vocab().keys() == their_words.get_vocab().keys() == {*SPECIAL, "a", "b", "c", "d"}
    assert one.config.vocab_size == other.config.vocab_size == 6
    text = "a b c d e"
    order = [their_words.get_vocab()[token] for token in sorted(ids, key=ids.__getitem__)]
    with torch.inference_mode():
        logits = one(**words(text, return_tensors="pt")).logits
        expected = other(**their_words(text, return_tensors="pt")).logits[..., order]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_models_with_the_same_tokens_are_left_alone(tmp_path):
    models = put(tmp_path, [Made(["a", "b"]), Made(["a", "b"])])
    for source in ("union", "base"):
        _, aligned = ours(models, None, TokenizerSource(source, {}), tmp_path / source)
        assert {text: dict(each.tensors) for text, each in models.items()} == aligned.tensors
        assert (aligned.tokenizer, aligned.token_ids) == (None, None)
        assert list((tmp_path / source).iterdir()) == []


def test_rows_that_are_only_moved_keep_every_bit_and_their_type(tmp_path):
    models = put(tmp_path, [Made(["a", "b", "c"], dtype=torch.bfloat16), Made(["c", "a", "b"], dtype=torch.bfloat16)])
    first, second = models
    _, aligned = ours(models, None, TokenizerSource("base", {}), tmp_path / "scratch")
    assert aligned.tensors[first] == models[first].tensors
    moved = aligned.tensors[second][EMBEDDING]
    assert moved.dtype == "BF16"
    stored = load_file(moved.path)[EMBEDDING]
    assert torch.equal(stored, load_file(Path(second) / "model.safetensors")[EMBEDDING][[0, 1, 3, 4, 2]])


def test_means_of_narrow_types_are_computed_in_float32(tmp_path):
    made = [Made(["a"], dtype=torch.bfloat16), Made(["b"], dtype=torch.bfloat16), Made(["b"], dtype=torch.bfloat16)]
    models = put(tmp_path, made)
    ids, aligned = ours(models, None, TokenizerSource("union", {}), tmp_path / "scratch")
    one, two, three = models
    row = aligned.tensors[one][EMBEDDING]
    rows = [values(models[text].tensors[EMBEDDING])[2] for text in (two, three)]
    assert row.dtype == "F32"
    torch.testing.assert_close(values(row)[ids["b"]], sum(rows) / 2, rtol=1e-6, atol=1e-6)


def test_many_blocks_are_one(tmp_path, monkeypatch):
    models = put(tmp_path, [Made(["a", "b", "c"], spare=1), Made(["c", "d"])])
    asked = TokenizerSource("union", {}, 16)
    _, aligned = ours(models, None, asked, tmp_path / "whole")
    monkeypatch.setattr(row_files, "BLOCK", 4 * WIDTH * 2)
    _, again = ours(models, None, asked, tmp_path / "parts")
    for text in models:
        assert again.tensors[text][EMBEDDING].path != aligned.tensors[text][EMBEDDING].path
        assert torch.equal(values(again.tensors[text][EMBEDDING]), values(aligned.tensors[text][EMBEDDING]))


def test_an_output_layer_of_its_own_in_one_model_is_given_to_a_tied_one(tmp_path):
    """What the tied model lacks is the other's row of each: of the embedding here, and of the output layer there."""
    models = put(tmp_path, [Made(["a"]), Made(["b"], tied=True)])
    free, tied = models
    ids, aligned = ours(models, free, TokenizerSource("union", {}), tmp_path / "scratch")
    for name in (EMBEDDING, HEAD):
        own = values(aligned.tensors[tied][name])
        assert torch.equal(own[ids["a"]], values(models[free].tensors[name])[2])
        assert torch.equal(own[ids["b"]], values(models[tied].tensors[EMBEDDING])[2])


def test_rows_of_an_adapted_embedding_have_its_product(tmp_path):
    models = put(tmp_path, [Made(["a", "b"]), Made(["b", "a"])])
    first, second = models
    rows = len(Made(["a", "b"]).tokens)
    draw = torch.Generator().manual_seed(5)
    factors = {"a": torch.randn(2, WIDTH, generator=draw), "b": torch.randn(rows, 2, generator=draw),
               "ta": torch.randn(2, rows, generator=draw), "tb": torch.randn(WIDTH, 2, generator=draw)}  # fmt: skip
    save_file(factors, tmp_path / "adapter.safetensors")
    at = tensors_in(tmp_path / "adapter.safetensors")
    plain = models[second].tensors
    changed = {HEAD: Adapted(plain[HEAD], at["a"], at["b"], 0.5),
               EMBEDDING: Adapted(plain[EMBEDDING], at["ta"], at["tb"], 0.5, transposed=True)}  # fmt: skip
    models[second] = model(Path(second), **changed)
    _, aligned = ours(models, first, TokenizerSource("base", {}), tmp_path / "scratch")
    for name, source in changed.items():
        moved = values(aligned.tensors[second][name])
        torch.testing.assert_close(moved, values(source)[[0, 1, 3, 2]], rtol=1e-6, atol=1e-6)


def test_a_token_that_no_model_has_gets_what_the_recipe_says_in_all(tmp_path):
    """mergekit would take an unused row of the base for it, and fail where there is none."""
    for spare in (0, 1):
        models = put(tmp_path / f"{spare}", [Made(["a"], spare=spare), Made(["a"])])
        tokens = {"new": TokenRow(reference(Path(list(models)[1])), token="a")}
        ids, aligned = ours(models, None, TokenizerSource("base", tokens), tmp_path / f"{spare}" / "scratch")
        assert all(str(tmp_path) not in file.read_text() for file in aligned.tokenizer.iterdir())
        for tensors in aligned.tensors.values():
            assert torch.equal(values(tensors[HEAD])[ids["new"]], values(list(models.values())[1].tensors[HEAD])[2])


def test_the_donors_tokens_are_found_again_in_another_models_tokenizer(tmp_path):
    models = put(tmp_path, [Made(["a", "b"]), Made(["b", "c"])])
    _, second = models
    ids, aligned = ours(models, None, TokenizerSource(reference(Path(second)), {}), tmp_path / "scratch")
    assert aligned.tokenizer == Path(second)
    assert aligned.token_ids == {0: 0, 1: 1, 2: None, 3: ids["b"]}


def test_a_model_without_a_tokenizer_has_the_donors(tmp_path):
    models = put(tmp_path, [Made(["a", "b"]), Made(["x", "y"])])
    first, second = models
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (Path(second) / name).unlink()
    _, aligned = ours(models, first, TokenizerSource("union", {}), tmp_path / "scratch")
    assert aligned.tensors[second] == models[second].tensors
    with pytest.raises(BadInput, match="the folder has no tokenizer"):
        ours(models, second, TokenizerSource("union", {}), tmp_path / "other")


def test_tokens_beyond_the_rows_of_a_donor_are_taken_out_or_refused(tmp_path):
    """mergekit takes them out of byte-pair encodings, and so is it here."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    models = put(tmp_path, [Made(["a", "b"]), Made(["a", "b"])])
    first, second = models
    asked = TokenizerSource("base", {})
    encoding = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2, "c": 3, "d": 4}, [("a", "b")]))
    PreTrainedTokenizerFast(tokenizer_object=encoding).save_pretrained(first)
    ids, _ = ours(models, first, asked, tmp_path / "scratch")
    their_ids, _ = mergekits(models, first, asked, ())
    assert ids == their_ids == {"a": 0, "b": 1, "ab": 2, "c": 3}
    encoding = Tokenizer(BPE({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, [("a", "b"), ("ab", "c")]))
    PreTrainedTokenizerFast(tokenizer_object=encoding).save_pretrained(first)  # a rule makes it, and mergekit fails
    ids, _ = ours(models, first, asked, tmp_path / "rule")
    assert ids == {"a": 0, "b": 1, "c": 2, "ab": 3}
    word_tokenizer(["a", "b", "c"]).save_pretrained(second)
    with pytest.raises(BadInput, match="1 tokens more than the model has rows, such as 'c', and is of type WordLevel"):
        ours(models, second, TokenizerSource("base", {}), tmp_path / "other")


def refusals(models):
    first, second = (reference(Path(text)) for text in models)
    other = Reference("elsewhere", None)
    return {
        "has no token 'c'": {"a": TokenRow(first, token="c")},
        "has no token 'x'": {"x": TokenRow(second)},
        "which is not merged here": {"a": TokenRow(other)},
        "forced on all models, and has no source": {"a": TokenRow(force=True)},
        "none for token 99": {"a": TokenRow(first, token_id=99, force=True)},
    }


@pytest.mark.parametrize("number", range(5))
def test_rules_that_cannot_be_kept_are_refused(number, tmp_path):
    models = put(tmp_path, [Made(["a", "b"]), Made(["a", "b"])])
    words, tokens = list(refusals(models).items())[number]
    with pytest.raises(BadInput, match=words) as refused:
        ours(models, None, TokenizerSource("union", tokens), tmp_path / "scratch")
    assert "\n" not in str(refused.value)


def test_a_damaged_tokenizer_is_one_line(tmp_path):
    models = put(tmp_path, [Made(["a", "b"]), Made(["a", "b"])])
    _, second = models
    for content in (b'{"cut": ', b"\xff\xfe"):
        (Path(second) / "tokenizer.json").write_bytes(content)
        with pytest.raises(BadInput, match="the tokenizer cannot be read") as refused:
            align_tokens(models, None, TokenizerSource("union", {}), tmp_path)
        assert "\n" not in str(refused.value)
        assert second in str(refused.value)


def test_without_a_tokenizer_rows_go_by_their_numbers(tmp_path):
    models = put(tmp_path, [Made(["a"]), Made(["a"], spare=2), Made(["a"], spare=1)])
    texts = list(models)
    whole = [values(each.tensors[HEAD]) for each in models.values()]
    with pytest.raises(BadInput, match=r"'.*m0' has 3, '.*m1' has 5, '.*m2' has 4.*vocabulary: intersect, or union"):
        align_rows(models, None, "refuse", tmp_path)
    (tmp_path / "few").mkdir()
    fewest = align_rows(models, None, "intersect", tmp_path / "few")
    assert fewest.rows == 3
    assert all(torch.equal(values(fewest.tensors[text][HEAD]), all_rows[:3])
               for text, all_rows in zip(texts, whole, strict=True))  # fmt: skip
    for base in (None, texts[2]):
        (tmp_path / f"all{base is None}").mkdir()
        most = align_rows(models, base, "union", tmp_path / f"all{base is None}")
        assert most.rows == 5
        assert most.tensors[texts[1]] == models[texts[1]].tensors
        third = whole[2][3] if base else (whole[1][3] + whole[2][3]) / 2
        expected = torch.cat([whole[0], third[None], whole[1][4:]])
        torch.testing.assert_close(values(most.tensors[texts[0]][HEAD]), expected, rtol=1e-6, atol=1e-6)


def test_equal_numbers_of_rows_are_left_alone_whatever_the_policy(tmp_path):
    models = put(tmp_path, [Made(["a"]), Made(["b"])])
    for policy in ("refuse", "intersect", "union"):
        aligned = align_rows(models, None, policy, tmp_path)
        assert (aligned.rows, aligned.tokenizer) == (None, None)
        assert aligned.tensors == {text: each.tensors for text, each in models.items()}


def test_tensors_with_a_row_for_every_token_are_those_of_mergekits_architectures():
    """Of the kinds of models that transformers knows itself."""
    import mergekit

    compared = 0
    for file in sorted((Path(mergekit.__file__).parent / "_data" / "architectures").glob("*.json")):
        said = json.loads(file.read_text())
        parts = [each["architecture"] for each in said["modules"].values()] if "modules" in said else [said]
        if said["model_type"] not in CONFIG_MAPPING:
            continue
        for part in parts:
            for weight in [*part.get("pre_weights", []), *part.get("post_weights", [])]:
                assert has_rows(weight["name"]) == ("vocabulary_axis" in weight), (file.name, weight["name"])
                compared += 1
    assert compared > 100


def test_nothing_heavy_is_imported_with_the_module():
    code = ("import sys, harness.recipes.vocabularies\n"
            "print([name for name in ('torch', 'transformers', 'peft', 'pandas') if name in sys.modules])")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
