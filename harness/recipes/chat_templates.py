"""The chat template of a merge: the donor's, the one that most models have, one by name, or one written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.errors import BadInput
from harness.models.settings import read_object

AUTO = "auto"
TEMPLATE, MORE_TEMPLATES, LEGACY_TEMPLATE = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
"""Where transformers reads templates from, before the key ``chat_template`` of tokenizer_config.json."""

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
}
"""Templates by the names that recipes give them. ChatML: every message between two marks, its role on the first line
(https://github.com/openai/openai-python/blob/v0.28.1/chatml.md)."""


def template_of(folder: Path) -> str | None:
    """The default chat template of a folder, by the precedence of transformers; None where it has none.

    Raises:
        BadInput: a file that is not UTF-8, a tokenizer_config.json that is not JSON.
    """
    if (file := folder / TEMPLATE).is_file():
        return _text(file)
    if any((folder / MORE_TEMPLATES).glob("*.jinja")):  # with such files the key is not read
        other = folder / MORE_TEMPLATES / "default.jinja"
        return _text(other) if other.is_file() else None
    if not (file := folder / "tokenizer_config.json").is_file():
        return None
    said = read_object(file).get("chat_template")
    if isinstance(said, list):
        named = {each.get("name"): each.get("template") for each in said if isinstance(each, dict)}
        said = named.get("default")
    return said if isinstance(said, str) else None


def chosen_template(asked: str | None, models: Sequence[Path], place: str | None = None) -> str | None:
    """The text of the template that a recipe asks for; None where the donor's is kept as it is.

    Args:
        asked: "auto" (what most models have, of several the first), a name of ``TEMPLATES``, or a template's text.
        models: the folders of all models, in the order of the recipe.
        place: of the key in the recipe, for errors.

    Raises:
        BadInput: an unknown name, or text that is no template.
    """
    if asked is None:
        return None
    if asked == AUTO:
        found = Counter(text.strip() for folder in models if (text := template_of(folder)))
        return found.most_common(1)[0][0] if found else None  # of equal counts the first that was counted
    if asked in TEMPLATES:
        return TEMPLATES[asked]
    if "{" not in asked:
        raise BadInput(
            f"unknown chat template '{asked}'",
            place=place,
            given=asked,
            choices=[AUTO, *TEMPLATES],
            hint="or write the template out: any text with '{' is taken as one",
        )
    _check(asked, place)
    return asked


def _check(template: str, place: str | None) -> None:
    """``BadInput`` where transformers would fail on a template whenever it is used."""
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(template)
    except TemplateSyntaxError as error:
        raise BadInput(f"the chat template is not Jinja: {error.message}", place=place) from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{file.name} is not UTF-8", place=str(file.parent)) from None
