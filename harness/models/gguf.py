"""A quantised model in a GGUF file, made into a plain Hugging Face folder: float32 safetensors, config, tokenizer."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

from harness.errors import BadInput

ALIKE = ("default", "gpt-2")
"""What GGUF calls the ways of splitting text that transformers reads out of such a file as they are."""


def check_reader(place: str) -> None:
    """``BadInput`` where the package that reads GGUF files is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise BadInput("a GGUF file is read with the package gguf", place=place, hint="pip install 'stockpot[gguf]'")


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into an existing folder.

    The weights are float32: what the file holds is a scale and an offset for every few small integers, which a
    shorter format would round again, by as much as a short fine-tune changes them.

    Raises:
        BadInput: without the package gguf, or for a tokenizer that would be another one here.
    """
    check_reader(file.name)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **source)
        _split_as_told(tokenizer, file)
        tokenizer.save_pretrained(str(folder))
        quantised = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **source)
        # save_pretrained refuses what was read from GGUF, so the weights move into a model that was not
        settings = quantised.config.to_dict()
        del settings["quantization_config"]
        plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
        plain.load_state_dict(quantised.state_dict())
        plain.save_pretrained(str(folder))


def _split_as_told(tokenizer: Any, file: Path) -> None:
    """Give a tokenizer the pre-tokenizer that the file names, which transformers overlooks."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    named = bytes(field.parts[-1]).decode() if field else "default"
    if named == "smollm":  # every digit by itself: runs of white space before a number stay whole
        digits = pre_tokenizers.Digits(individual_digits=True)
        pieces = [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    elif named not in ALIKE:
        raise BadInput(f"the tokenizer splits text as '{named}'", place=file.name, choices=["smollm", *ALIKE])
