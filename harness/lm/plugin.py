"""The model ``stockpot`` of lm-evaluation-harness: a combination file, scored as any other model is.

lm-eval 0.4.13 finds it once this module is imported (``stockpot lm-eval`` does); later versions read the entry point.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401  (before registering, or lm-eval's own models vanish)
import torch
from lm_eval.api.registry import register_model

from harness.errors import BadInput
from harness.lm.combination_file import models_and_rule, read_combination
from harness.lm.lm_eval_model import StockpotLM
from harness.tasks.data_files import count_no_loads
from harness.tasks.trust import sandbox_templates


@register_model("stockpot")
class StockpotFromFile(StockpotLM):
    """``--model stockpot --model_args config=combination.yaml[,max_length=N,packed=true|false,…]``.

    ``add_bos_token`` and ``prefix_token_id`` are lm-eval's own.

    lm-eval's ``--batch_size`` counts requests; here a batch is measured in tokens and found from the free memory, so a
    number is read as so many requests of the longest length, and ``auto`` as the default.
    """

    def __init__(
        self,
        config: str | None = None,
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        max_length: int | None = None,
        packed: bool | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        **unknown: Any,
    ) -> None:
        given = {"max_length": max_length, "packed": packed, "max_gen_toks": max_gen_toks,
                 "add_bos_token": add_bos_token, "prefix_token_id": prefix_token_id}  # fmt: skip
        if unknown:
            name = next(iter(unknown))
            raise BadInput(f"--model_args: unknown argument '{name}'", given=name, choices=["config", *given])
        for name, value in given.items():
            _check_argument(name, value)
        if config is None:
            raise BadInput("--model_args: the combination file is missing", hint="config=combination.yaml")
        cuda = torch.cuda.is_available()  # lm-eval asks for cuda:0 where the user names no device
        place = torch.device((device or "cuda") if cuda else "cpu")
        begun = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
        combination, tokenizer = read_combination(Path(config), place, **begun)
        models, rule = models_and_rule(combination)
        super().__init__(
            models,
            rule,
            tokenizer,
            packed=packed,
            max_length=max_length,
            max_gen_toks=max_gen_toks,
            add_bos_token=add_bos_token,
            prefix_token_id=prefix_token_id,
        )
        if str(batch_size).isdigit() and int(str(batch_size)) > 1:
            self.batch_tokens = int(str(batch_size)) * self.max_length


def _check_argument(name: str, value: Any) -> None:
    """``BadInput`` where lm-eval read a word into something of another type than the argument's."""
    wanted = "true or false" if name in ("packed", "add_bos_token") else "a whole number"
    right = isinstance(value, bool) if wanted == "true or false" else type(value) is int and value >= 0
    if not right and not (value is None and name != "max_gen_toks"):
        raise BadInput(f"--model_args: {name} is {wanted}, not '{value}'")


def run_lm_eval(arguments: Sequence[str]) -> None:
    """lm-eval's own command line, with the model ``stockpot`` known to it.

    It imports the functions that task files name, as lm-eval does; their templates are rendered in a sandbox.
    """
    from lm_eval.__main__ import cli_evaluate

    sandbox_templates()
    count_no_loads()
    sys.argv = ["stockpot lm-eval", *arguments]
    cli_evaluate()
