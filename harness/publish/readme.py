"""The README.md beside an exported model."""

from __future__ import annotations

from collections.abc import Sequence

from harness.display.formats import inline_code, percent, percent_interval, plain_text
from harness.publish.model_card import model_index
from harness.results.columns import ALL_SEEDS
from harness.results.run import Run

LIBRARY = "library_name: peft\n"
"""Metadata of an adapter."""
SCORES_ARE_OF_THE_VARIANT = "the scores are those of the variant, not of the adapter that stands for it"


def model_readme(run: Run, variant: str, seed: int, stored: str, adapter: Sequence[str] = ()) -> str:
    """Markdown with the scores as metadata (``model-index``), and where the model comes from.

    ``stored`` says in which precision the weights are, and whether they were rounded to it; ``adapter``, of an adapter
    that stands for the variant, what it is made of and how far it is from it.
    """
    record = run.record
    row = run.variants[(run.variants["variant"] == variant) & (run.variants["seed"] == ALL_SEEDS)].iloc[0]
    suite, name = record["suite"], f"{record['suite']['name']}-{row['method']}"
    accuracy = f"{percent(row['accuracy'])} ({percent_interval(row['accuracy_low'], row['accuracy_high'])})"
    lines = [
        f"---\n{LIBRARY if adapter else ''}{model_index(run, variant, name)}---",
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
    return "\n\n".join(lines[:3]) + "\n\n" + "\n".join(lines[3:]) + "\n"
