"""The README.md beside an exported model."""

from __future__ import annotations

from collections.abc import Sequence

from harness.display.formats import inline_code, percent, percent_interval, plain_text
from harness.models.heads import IMAGE, SEQUENCE, Head
from harness.publish.model_card import model_index
from harness.results.columns import ALL_SEEDS
from harness.results.run import Run

LIBRARY = "library_name: peft\n"
"""Metadata of an adapter."""
SCORES_ARE_OF_THE_VARIANT = "the scores are those of the variant, not of the adapter that stands for it"


def model_readme(
    run: Run, variant: str, seed: int, stored: str, head: Head | None = None, adapter: Sequence[str] = ()
) -> str:
    """Markdown with the scores as metadata (``model-index``), how a classifier is used, and where the model comes from.

    Args:
        run: a finished run.
        variant: one of its variants.
        seed: of the run.
        stored: says in which precision the weights are, and whether they were rounded to it.
        head: of a model of transformers.
        adapter: of an adapter that stands for the variant, what it is made of and how far it is from it.
    """
    record, kind = run.record, head.pipeline if head and head.labelled else "other"
    row = run.variants[(run.variants["variant"] == variant) & (run.variants["seed"] == ALL_SEEDS)].iloc[0]
    suite, name = record["suite"], f"{record['suite']['name']}-{row['method']}"
    accuracy = f"{percent(row['accuracy'])} ({percent_interval(row['accuracy_low'], row['accuracy_high'])})"
    lines = [
        f"---\n{LIBRARY if adapter else _tags(head)}{model_index(run, variant, name, kind)}---",
        f"# {name}",
        f"The variant {inline_code(variant)} of the Stockpot suite {inline_code(suite['name'])}, seed {seed}: "
        f"accuracy on test {accuracy}, 95 % interval, over the seeds {', '.join(map(str, record['seeds']))}.",
        f"- method {inline_code(str(row['method']))} with {inline_code(str(row['params']))}, "
        f"on {row['members']} members of the pool {inline_code(str(row['pool']))}",
        f"- weights stored {stored}",
        *(f"- {plain_text(sentence)}" for sentence in (*adapter, SCORES_ARE_OF_THE_VARIANT) if adapter),
        f"- data: {plain_text(record['task']['title'])}, from {plain_text(record['task']['source'])}",
        f"- run {record['run_id']}, suite digest {suite['digest'][:16]}, code {record['git_commit'] or 'unknown'}",
    ]
    return "\n\n".join(lines[:3]) + "\n\n" + "\n".join(lines[3:]) + "\n" + _usage(head)


def _tags(head: Head | None) -> str:
    """What the Hub finds a classifier by."""
    return f"library_name: transformers\npipeline_tag: {head.pipeline}\n" if head and head.labelled else ""


def _usage(head: Head | None) -> str:
    """Code that uses a classifier, run in its folder."""
    if head is None or not head.labelled:
        return ""
    given = {SEQUENCE: '"a text", truncation=True', IMAGE: '"image.png"'}[head]
    lines = ["from transformers import pipeline", "", f'classify = pipeline("{head.pipeline}", ".")',
             f"print(classify({given}))"]  # fmt: skip
    return "\n".join(["", "In this folder:", "", "```python", *lines, "```", ""])
