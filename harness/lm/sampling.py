"""Self-consistency: several answers are drawn for every prompt, and one of them is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.lm.answered import Answered, tokens_of
from harness.lm.generation_request import Written
from harness.systems.written import SelfConsistency
from harness.tasks.answers import extracted
from harness.types import Unscored

if TYPE_CHECKING:
    from harness.lm.writing import Writing


def draw_and_choose(system: SelfConsistency, writing: Writing) -> Answered:
    """What a member says after it has drawn ``n`` answers to every prompt; ``Unscored`` where a task draws itself.

    Nothing but ``top_p`` cuts what is drawn from: transformers would draw from the 50 best tokens, unasked.
    """
    if any(prompt.repeats > 1 for prompt in writing.prompts):
        raise Unscored("the task itself asks for several answers of each document (repeats), and votes on them")
    writer = writing.writer(system.parts())
    rows = range(len(writing.prompts))
    how = {"do_sample": True, "temperature": system.temperature, "top_p": system.top_p, "top_k": 0}
    texts = iter(writer.write([(row, k) for row in rows for k in range(system.n)], how, system.seed))
    drawn = [[next(texts) for _ in range(system.n)] for _ in rows]
    record = {}
    if system.by == "majority":
        words = extracted(writing.questions, [[each.text for each in of_one] for of_one in drawn])
        chosen = [majority(each) for each in words]
        votes = [each.count(each[place]) / system.n for each, place in zip(words, chosen, strict=True)]
        record["votes"] = {"mean_share_of_the_answer": float(np.mean(votes))}
    else:
        chosen = [likeliest(each) for each in drawn]
    calls = np.full((len(drawn), 1), system.n, dtype=np.int64)
    answers = [[of_one[place].text] for of_one, place in zip(drawn, chosen, strict=True)]
    return Answered(answers, calls, tokens_of(drawn), record)


def majority(words: Sequence[str]) -> int:
    """The place of the first that there are most of; of those of which there are as many, the first."""
    return words.index(Counter(words).most_common(1)[0][0])


def likeliest(drawn: Sequence[Written]) -> int:
    """The place of the answer whose tokens are the most probable on average, the first of equals.

    The sum would prefer what is short, and an answer that stops at once most of all.
    """
    return int(np.argmax([np.mean(each.log_probs) for each in drawn]))
