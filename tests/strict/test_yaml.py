"""The strict YAML reader: each refusal with its line, and the same values as other readers where both accept."""

import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.strict.yaml import DEPTH, load, load_all, read, read_all
from tests.examples import examples


def value_of(text):
    return load(text, "file.yaml").value


def refusal(text):
    with pytest.raises(BadInput) as caught:
        load(text, "file.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


REFUSED = {
    "duplicate key": ("a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a'; it is first given on line 1"),
    "duplicate key, inside": ("a:\n  - x: 1\n    y: 2\n    x: 3\n", 4, "key 'x'; it is first given on line 2"),
    "duplicate key, quoted": ("a: 1\n'a': 2\n", 2, "duplicate key 'a'"),
    "duplicate key, flow": ("a: 1\nb: {c: 1, c: 1}\n", 2, "duplicate key 'c'"),
    "number as key": ("a: 1\n1: a\n", 2, "a key must be text, not 1; quote it"),
    "fraction as key": ("1.5: a\n", 1, "a key must be text, not 1.5"),
    "null as key": ("a: 1\nnull: a\n", 2, "a key must be text, not null"),
    "nothing as key": ("a: 1\n? \n: a\n", 2, "a key must be text, not null"),
    "truth value as key": ("true: a\n", 1, "a key must be text, not true"),
    "infinity as key": (".inf: a\n", 1, "a key must be text, not .inf"),
    "list as key": ("a: 1\n? [b]\n: c\n", 2, "a key must be text, not a list or mapping"),
    "mapping as key": ("{a: 1}: c\n", 1, "a key must be text, not a list or mapping"),
    "anchor": ("a: 1\nb: &x 3\n", 2, "anchor '&x' is not allowed; write the value out"),
    "anchor on a list": ("a: &x\n  - 1\n", 1, "anchor '&x' is not allowed"),
    "anchor on a key": ("a: 1\n&x b: 1\n", 2, "anchor '&x' is not allowed"),
    "alias": ("a: 1\nb: *x\n", 2, "alias '*x' is not allowed; write the value out"),
    "tag": ("a: 1\nb: !!str 3\n", 2, "is not allowed; quote what should be text"),
    "tag of Python": ("a: !!python/object/apply:os.system ['true']\n", 1, "is not allowed"),
    "tag of the file's own": ("a:\n - !x 3\n", 2, "tag '!x' is not allowed"),
    "empty tag": ("a: ! 3\n", 1, "tag '!' is not allowed"),
    "merge key": ("a: 1\n<<: {b: 2}\n", 2, "merge key '<<' is not allowed; write the keys out"),
    "infinity": ("a: 1\nb: .inf\n", 2, "number '.inf' is not finite"),
    "minus infinity": ("a: [1, -.INF]\n", 1, "number '-.INF' is not finite"),
    "not a number": ("a: 1\nb:\n  c: .NaN\n", 3, "number '.NaN' is not finite"),
    "a number too large": ("a: 1\nb: 1e999\n", 2, "number '1e999' is not finite"),
    "a number too long": ("a: 1\nb: " + 5000 * "9" + "\n", 2, "a number of 5000 digits is too long"),
    "yes": ("a: 1\nb: yes\n", 2, "'yes' is not a truth value in YAML 1.2; write true, or \"yes\" if it is text"),
    "no": ("a: 1\nb: [1, no]\n", 2, "'no' is not a truth value in YAML 1.2; write false, or \"no\" if it is text"),
    "On": ("b: On\n", 1, "'On' is not a truth value in YAML 1.2; write true, or \"On\" if it is text"),
    "OFF": ("b: OFF\n", 1, "'OFF' is not a truth value in YAML 1.2; write false, or \"OFF\" if it is text"),
    "several documents": ("a: 1\n---\nb: 2\n", 2, "the file holds several documents; remove the line '---'"),
    "empty file": ("", 1, "the file is empty"),
    "only comments": ("# nothing\n\n# here\n", 1, "the file is empty"),
    "only a document start": ("---\n", 1, "the file is empty"),
    "tab as indentation": ("a:\n\tb: 1\n", 2, "a tab is not allowed here; indent and separate with spaces"),
    "tab after the colon": ("a: 1\nb:\tc\n", 2, "a tab is not allowed here"),
    "control character": ("a: 1\nb: \x07\n", 2, "character '\\x07' is not allowed in YAML"),
    "line separator of YAML 1.1": ("a: 1\n# \x85b: c\n", 2, "character '\\x85' is not allowed; it ends a line"),
    "line separator in text": ("a: 1\nb: 'c\u2028d'\n", 2, "character '\\u2028' is not allowed"),
    "unpaired surrogate": ("a: 1\nb: \ud800\n", 2, "character '\\ud800' is not allowed in YAML"),
    "escaped half of a surrogate pair": ('a: 1\nb: "\\uD800"\n', 2, "the text holds half of a surrogate pair"),
    "escape out of range": ('a: 1\nb: "\\UFFFFFFFF"\n', 2, "an escape or a version is out of range"),
    "colon in text": ("a: 1\nb: c: d\n", 2, "not valid YAML: mapping values are not allowed here; quote text"),
    "reserved character": ("a: 1\nb: @c\n", 2, "found character '@' that cannot start any token; quote text"),
    "open bracket": ("a: [1,\n", 2, "not valid YAML"),
    "open quote": ("a: 1\nb: 'c\n", 3, "not valid YAML"),
    "wrong indentation": ("a:\n    b: 1\n  c: 2\n", 3, "not valid YAML"),
    "a number of documents that end": ("a: 1\n...\nb: 2\n", 3, "not valid YAML"),
    "nested too deep": (f"a: 1\nb: {DEPTH * '['}{DEPTH * ']'}\n", 2, f"nested more than {DEPTH} levels deep"),
}


@pytest.mark.parametrize(("text", "line", "words"), REFUSED.values(), ids=list(REFUSED))
def test_what_could_be_misread_is_refused_with_its_line(text, line, words):
    message = refusal(text)
    assert message.startswith(f"file.yaml:{line}: ")
    assert words in message


def test_the_deepest_allowed_nesting_is_read():
    value = value_of(f"b: {(DEPTH - 2) * '['}1{(DEPTH - 2) * ']'}\n")["b"]
    for _ in range(DEPTH - 2):
        (value,) = value
    assert value == 1


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("+7", 7),
        ("010", 10),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("-2.5e+2", -250.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("1.2.3", "1.2.3"),
        ("e3", "e3"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("y", "y"),
        ("tRUE", "tRUE"),
        ("<<", "<<"),
        ("=", "="),
        ("'no'", "no"),
        ('"1"', "1"),
        ("'true'", "true"),
        ("'a\tb'", "a\tb"),
        ('"\\u00e9"', "é"),
        ('"\\uD83D\\uDE00"', "😀"),
        ("😀", "😀"),
        ("two words", "two words"),
        ("a#b", "a#b"),
    ],
)
def test_plain_scalars_are_those_of_the_core_schema(plain, value):
    for text in (f"k: {plain}\n", f"k: [{plain}, 0]\n" if plain else "k:\n"):
        found = value_of(text)["k"]
        found = found[0] if isinstance(found, list) else found
        assert (found, type(found)) == (value, type(value))


def test_switches_are_keys_like_any_other():
    assert value_of("on: 1\nNo: 2\nyes: 3\n'<<': 4\n'1': 5\n") == {"on": 1, "No": 2, "yes": 3, "<<": 4, "1": 5}


def test_a_comment_is_no_text():
    assert value_of("a: b # no: yes\n# c: d\ne: [1, # two\n  3]\n") == {"a": "b", "e": [1, 3]}


def test_block_text_keeps_its_lines():
    assert value_of("a: |\n  one\n  no\nb: >\n  1\n  2\n") == {"a": "one\nno\n", "b": "1 2\n"}


KEYS = st.text(max_size=20)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="utf-8"), max_size=30)


def documents(words):
    return st.recursive(
        st.none() | st.booleans() | NUMBERS | words,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
        max_leaves=15,
    )


def same(found, expected):
    """Equal, and of the same types throughout: 1, 1.0 and True are three different things."""
    return json.dumps(found) == json.dumps(expected) and found == expected


@given(
    documents(WORDS),
    st.sampled_from([None, 2, "\t"]),
    st.booleans(),
    st.sampled_from([(", ", ": "), (",", ":"), ("\n, ", "\n:\t"), ("\r\n,", " \r\n : ")]),
)
@example({"\x85": None}, None, False, (", ", ": "))
@example({"a" * 2000: 1}, None, True, (", ", ": "))
@example(["\u2028", {"\ufeff\x7f": "\U0001f600\u2029"}], None, False, ("\n, ", "\n:\t"))
@examples(150)
def test_json_is_read_as_json(document, indent, ascii_only, separators):
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators)
    assert same(value_of(text), document)


def test_places_in_json_are_lines_of_the_file():
    document = load('{"a": "\u2028\x85",\n"b"\n:\t{"c": [1,\n2]}}', "file.yaml")
    assert [document.line(path) for path in [("a",), ("b",), ("b", "c"), ("b", "c", 1)]] == [1, 2, 3, 4]
    assert refusal('{"a": "\u2028\x85",\n"b": 1,\n"a": 2}').startswith("file.yaml:3: duplicate key 'a'")
    assert refusal('{"a": "\x85",\n"b": 1e999}').startswith("file.yaml:2: number '1e999' is not finite")


SIMPLE = st.from_regex(r"[a-z][a-z ]{0,12}[a-z]", fullmatch=True).filter(lambda s: s not in ("yes", "no", "on", "off"))


@given(st.dictionaries(SIMPLE, documents(SIMPLE), min_size=1), st.sampled_from([None, False, True]))
@examples(60)
def test_what_pyyaml_writes_and_reads_is_read_alike(document, flow):
    text = yaml.safe_dump(document, default_flow_style=flow, width=1000)
    assert same(value_of(text), yaml.safe_load(text))


@given(st.text(st.sampled_from("ab1.~:-[]{},?!&*#|>'\"%@<\n\t \\eNo\x85\u2028"), max_size=40))
@examples(200)
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        document = load(text, "file.yaml")
    except BadInput as refused:
        message = str(refused)
        place, line, _ = message.split(":", 2)
        assert place == "file.yaml"
        assert 1 <= int(line) <= text.count("\n") + 1
        assert "\n" not in message
    else:
        json.dumps(document.value, allow_nan=False)


PLACES = """# a comment
first: 1
second:
  - x: 1

    y: {z: 2,
        u: 3}
  - 4
third:

  deep: text
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 2),
        (("first",), 2),
        (("second",), 3),
        (("second", 0), 4),
        (("second", 0, "y"), 6),
        (("second", 0, "y", "u"), 7),
        (("second", 1), 8),
        (("third", "deep"), 11),
        (("fourth",), 2),
        (("second", 0, "missing"), 4),
        (("second", 7, "missing"), 3),
        (("third", "deep", "er"), 11),
    ],
)
def test_every_value_has_its_line_and_what_is_missing_that_of_its_holder(path, line):
    document = load(PLACES, "file.yaml")
    assert document.line(path) == line
    assert document.place(path) == f"file.yaml:{line}"


def test_a_file_is_read_with_its_path_as_source(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_bytes("a: é\nb: 2\n".encode())
    document = read(path)
    assert (document.value, document.source, document.text) == ({"a": "é", "b": 2}, str(path), "a: é\nb: 2\n")
    assert document.place(("b",)) == f"{path}:2"


def test_a_file_that_is_not_there_or_is_a_folder_is_one_line(tmp_path):
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(BadInput, match="cannot be read") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert reason in str(caught.value)


def test_a_file_that_is_not_utf_8_names_the_line(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(BadInput, match="not UTF-8") as caught:
        read(path)
    assert str(caught.value) == f"{path}:2: the file is not UTF-8; save it as UTF-8"


SEVERAL = """# the first
a: 1
b: [2,
  3]
---
# the second
a:
  - x: 4
--- # the third
- 5
"""


def test_each_of_several_documents_has_its_values_its_part_of_the_text_and_the_lines_of_the_file():
    first, second, third = load_all(SEVERAL, "file.yaml")
    assert [first.value, second.value, third.value] == [{"a": 1, "b": [2, 3]}, {"a": [{"x": 4}]}, [5]]
    assert first.text + second.text + third.text == SEVERAL
    assert second.text.startswith("---\n# the second")
    assert [first.line(("b", 1)), second.line(("a",)), second.line(("a", 0, "x")), third.line((0,))] == [4, 7, 8, 10]
    assert third.place(()) == "file.yaml:10"


@pytest.mark.parametrize("text", ["a: 1\n", "---\na: 1\n", "a: 1\n...\n", '{"a":\n1}', "# one\n---\na: 1\n"])
def test_a_file_of_one_document_is_read_alike_as_one_and_as_several(text):
    assert load_all(text, "file.yaml") == (load(text, "file.yaml"),)


SEVERAL_REFUSED = {
    "nothing": ("", 1, "the file is empty"),
    "an empty one at the end": ("a: 1\n---\n", 2, "document 2 of 2 is empty; remove its line '---'"),
    "an empty one at the start": ("---\n---\na: 1\n", 1, "document 1 of 2 is empty"),
    "an empty one between": ("a: 1\n---\n# none\n---\nb: 1\n", 2, "document 2 of 3 is empty"),
    "a duplicate key in the second": ("a: 1\n---\nb: 1\nb: 2\n", 4, "duplicate key 'b'; it is first given on line 3"),
    "a tag in the second": ("a: 1\n---\nb: !x 1\n", 3, "tag '!x' is not allowed"),
    "bad syntax in the second": ("a: 1\n---\nb: [1\n", 4, "not valid YAML"),
    "a separator of YAML 1.1": ("a: 1\n---\nb: \u2028\n", 3, "is not allowed; it ends a line"),
}


@pytest.mark.parametrize(("text", "line", "words"), SEVERAL_REFUSED.values(), ids=list(SEVERAL_REFUSED))
def test_what_is_refused_in_one_document_is_refused_in_each_of_several(text, line, words):
    with pytest.raises(BadInput) as caught:
        load_all(text, "file.yaml")
    assert str(caught.value).startswith(f"file.yaml:{line}: ")
    assert words in str(caught.value)


@given(st.lists(st.dictionaries(SIMPLE, documents(SIMPLE), min_size=1), min_size=1, max_size=4))
@examples(40)
def test_several_documents_that_pyyaml_writes_are_read_alike(values):
    text = yaml.safe_dump_all(values, width=1000)
    assert same([document.value for document in load_all(text, "file.yaml")], list(yaml.safe_load_all(text)))


def test_a_file_of_several_documents_is_read_with_its_path_as_source(tmp_path):
    path = tmp_path / "merges.yaml"
    path.write_text("a: 1\n---\nb: 2\n")
    assert [document.value for document in read_all(path)] == [{"a": 1}, {"b": 2}]
    assert read_all(path)[1].place(("b",)) == f"{path}:3"
    with pytest.raises(BadInput, match="cannot be read"):
        read_all(tmp_path / "none.yaml")
