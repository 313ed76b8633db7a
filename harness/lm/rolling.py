"""The log-likelihood of a whole text in windows, each token predicted once, as lm-eval cuts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.lm.scoring import Request


def windows(tokens: Sequence[int], prefix: int, length: int) -> Iterator[Request]:
    """Requests that together predict every token of a text once, each with at most ``length`` tokens to read.

    The first window starts from the prefix token. The others start from a token of the text, and the last one also
    reads what is already predicted, so that its predictions have all the context that fits
    (lm-eval's ``get_rolling_token_windows`` with ``context_len=1``, made disjoint).
    """
    tokens = tuple(tokens)
    if tokens:
        yield Request((prefix,), tokens[:length])
    for start in range(length, len(tokens), length):
        end = min(start + length, len(tokens))
        yield Request(tokens[end - length - 1 : start], tokens[start:end])
