"""The verbs that hand what a run built to others."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import AllowCode

commands = typer.Typer()


@commands.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    variant: Annotated[str, typer.Argument(help="A variant that is one model.", metavar="VARIANT")],
    folder: Annotated[Path, typer.Argument(help="The folder to write, which must not exist.", metavar="DIR")],
    seed: Annotated[int | None, typer.Option(min=0, help="A seed of the run; its first by default.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 for a language model's weights; by "
                                                   "default that of its members.")] = None,
    adapter_rank: Annotated[int | None, typer.Option(help="Write an adapter (LoRA) of at most this rank on the pool's "
                                                          "base in place of the whole model.", metavar="R")] = None,
    allow_code: AllowCode = False,
) -> None:
    """Write a variant's model as a folder with a model card: a Hugging Face checkpoint, or a network of ours."""
    from harness.publish.export import export as write
    from harness.results.damaged import reading_run
    from harness.results.run import read_run

    say = partial(print, file=sys.stderr)
    with reading_run(run):
        print(write(read_run(run), variant, folder, seed, dtype, allow_code, adapter_rank, say))


@commands.command("model-index")
def model_index(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    variant: Annotated[str, typer.Argument(help="A variant's name.", metavar="VARIANT")],
    name: Annotated[str | None, typer.Option(help="The model's name; the variant's by default.")] = None,
) -> None:
    """Print a variant's scores as metadata for a Hugging Face model card (the key model-index)."""
    from harness.publish.model_card import model_index as as_yaml
    from harness.results.damaged import reading_run
    from harness.results.run import read_run

    with reading_run(run):
        print(as_yaml(read_run(run), variant, name or variant), end="")


@commands.command("eval-results")
def eval_results(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    variant: Annotated[str, typer.Argument(help="A variant's name.", metavar="VARIANT")],
    dataset: Annotated[str, typer.Option(help="The benchmark's dataset on the Hub, such as cais/hle.")],
    task: Annotated[str, typer.Option(help="The benchmark's task id.")],
    metric: Annotated[str, typer.Option(help="Which score.")] = "accuracy",
) -> None:
    """Print a variant's score as a file for .eval_results in a model's repository on the Hugging Face Hub."""
    from harness.publish.model_card import eval_results as as_yaml
    from harness.results.damaged import reading_run
    from harness.results.run import read_run

    with reading_run(run):
        print(as_yaml(read_run(run), variant, dataset, task, metric), end="")


@commands.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
             add_help_option=False)  # fmt: skip
def lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness with the model 'stockpot': --model stockpot --model_args config=combination.yaml ...

    All of lm-eval's own flags are passed on. A combination file names a pool of folders and a method.
    """
    from harness.lm.plugin import run_lm_eval

    run_lm_eval(context.args)
