"""Text to requests of tokens, with lm-eval's treatment of special tokens, spaces and empty contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

from harness.errors import BadInput
from harness.lm.rolling import windows
from harness.lm.scoring import Request, Scored


class Instance(Protocol):
    """What is read of lm-eval's ``Instance``."""

    request_type: str
    args: tuple[Any, ...]


class Encoder:
    """A tokenizer as lm-eval's ``hf`` model uses it.

    Args:
        max_length: the length of rolling windows.
        add_bos_token: whether text gets its special tokens; the tokenizer decides if None. (A tokenizer that has no
            template for them must be read with ``add_bos_token``, as transformers calls it.)
        prefix_token_id: what stands before a text without context; its beginning token, or else the one that ends
            texts, if None.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
    ) -> None:
        self.tokenizer, self.max_length, self.add_bos_token = tokenizer, max_length, add_bos_token
        self.prefix_token_id = prefix_token_id
        self._context = lru_cache(maxsize=8)(self.encode)  # the choices of a document share their context

    @property
    def eot(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix(self) -> int:
        """What stands before a text without context."""
        first = self.tokenizer.bos_token_id if self.prefix_token_id is None else self.prefix_token_id
        return self.eot if first is None else first

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Tokens of a text; a text that begins with the beginning-of-text token does not get another."""
        if add_special_tokens is None:
            begun = text.startswith(self.tokenizer.decode(self.prefix))
            add_special_tokens = False if begun else self.add_bos_token
        return self._tokens(text, add_special_tokens)

    def prompt(self, text: str) -> list[int]:
        """Tokens of a text to go on from; here lm-eval looks for the tokenizer's own beginning token only."""
        begun = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        return self._tokens(text, False if begun else self.add_bos_token)

    def _tokens(self, text: str, add_special_tokens: bool | None) -> list[int]:
        chosen = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(text, **chosen)

    def pair(self, context: str, continuation: str) -> Request:
        """The request of a context and a continuation; spaces between them belong to the continuation."""
        if not context:
            tokens = self.encode(continuation, add_special_tokens=False)
            whole = tokens if tokens[:1] == [self.prefix] else [self.prefix, *tokens]
            return Request(tuple(whole[:1]), tuple(whole[1:]))
        stripped = context.rstrip()
        before = self._context(stripped)
        return Request(tuple(before), tuple(self.encode(context + continuation)[len(before) :]))

    def rolling(self, text: str) -> list[Request]:
        """The windows of a whole text."""
        return list(windows(self.encode(text), self.prefix, self.max_length))


@dataclass(frozen=True)
class Collected:
    """Requests of several instances: instance i has those from ``starts[i]`` to ``starts[i + 1]``."""

    requests: tuple[Request, ...]
    starts: tuple[int, ...]
    kinds: tuple[str, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each request."""
        return [len(request.context) + len(request.continuation) for request in self.requests]

    @cached_property
    def largest(self) -> int:
        """The largest token of all; -1 if there is none."""
        return max((max(*r.context, *r.continuation, -1) for r in self.requests), default=-1)

    def answers(self, scored: Scored, system: str) -> list[Any]:
        """One system's answer per instance, as lm-eval wants it: (log-likelihood, greedy), or the sum of windows."""
        each = scored.answers(system)
        return [
            each[start] if kind == "loglikelihood" else sum(value for value, _ in each[start:end])
            for kind, start, end in zip(self.kinds, self.starts[:-1], self.starts[1:], strict=True)
        ]


def requests_of(encoder: Encoder, instances: Sequence[Instance]) -> Collected:
    """The token requests of ``loglikelihood`` and ``loglikelihood_rolling`` instances, to be scored in one pass.

    Raises:
        BadInput: for an instance of another kind, such as generation.
    """
    requests: list[Request] = []
    starts = [0]
    for instance in instances:
        if instance.request_type == "loglikelihood":
            requests.append(encoder.pair(*instance.args))
        elif instance.request_type == "loglikelihood_rolling":
            requests.extend(encoder.rolling(*instance.args))
        else:
            raise BadInput(f"a request of kind '{instance.request_type}' has no log-likelihood")
        starts.append(len(requests))
    return Collected(tuple(requests), tuple(starts), tuple(instance.request_type for instance in instances))
