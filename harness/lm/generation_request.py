"""lm-eval's generation requests: read into tokens, stops and ways to draw, each with a random stream of its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lm_eval.models.utils import normalize_gen_kwargs

from harness.errors import BadInput
from harness.lm.encoding import Encoder
from harness.lm.forward import LanguageModel
from harness.lm.generation import Stop
from harness.lm.generation_settings import end_ids

HARMLESS = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "use_cache": True}
KNOWN = ("do_sample", "temperature", "top_k", "top_p")


@dataclass(frozen=True)
class Written:
    """One answer to a ``generate_until`` request."""

    text: str
    """Up to its first stop string, as lm-eval cuts it."""
    log_probs: tuple[float, ...]
    """Of every token that was generated, also of those that end the text (``Generated.log_probs``)."""


class Asked(Protocol):
    """What is read of ``StockpotLM``."""

    models: Sequence[LanguageModel]
    tokenizer: Any
    encoder: Encoder
    max_gen_toks: int

    @property
    def max_length(self) -> int: ...
    @property
    def eot_token_id(self) -> int: ...


class GenerationRequest:
    """A generation request, read: the prompt cut on the left so that what is generated fits the model."""

    def __init__(self, model: Asked, text: str, given: Any) -> None:
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(given, model.max_gen_toks))
        self.max_new_tokens: int = wanted.pop("max_gen_toks")
        room = model.max_length - self.max_new_tokens
        if room < 1:
            raise BadInput(f"{self.max_new_tokens} tokens to generate with a model of {model.max_length}")
        whole = model.encoder.prompt(text)
        self.prompt = whole[-room:]
        self.cut = len(whole) - len(self.prompt)
        """Tokens that the prompt has lost."""
        end = model.tokenizer.decode([model.eot_token_id])
        strings = [string for string in [*wanted.pop("until"), end] if string]
        ends = end_ids(model.models) | {model.eot_token_id}
        self.stop = Stop(ends, tuple(dict.fromkeys(strings)), model.tokenizer.decode)
        self.given = known(wanted)
        self.settings = repr((self.max_new_tokens, self.stop.strings, self.given))


def known(wanted: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's normalised arguments that say how to draw; one that would be ignored is refused."""
    for name, value in wanted.items():
        if name not in KNOWN and HARMLESS.get(name) != value:
            raise BadInput(
                f"generation argument '{name}={value}' is not known",
                given=name,
                choices=["until", *KNOWN, "max_gen_toks"],
            )
    if not wanted["do_sample"]:  # temperature 0, which transformers would refuse
        return {name: value for name, value in wanted.items() if name not in KNOWN}
    return {**wanted, "temperature": float(wanted.get("temperature") or 1.0)}


def counted(asked: Sequence[tuple[str, Any]]) -> list[int]:
    """Of each request, how many that are equal to it stand before it."""
    seen: Counter[str] = Counter()
    numbers = []
    for each in map(repr, asked):
        numbers.append(seen[each])
        seen[each] += 1
    return numbers


def stream_of(text: str, number: int) -> int:
    """The random stream of a prompt's text of a number: the same whatever else is asked, and in which order."""
    return int(hashlib.sha256(f"{number} {text}".encode()).hexdigest()[:15], 16)
