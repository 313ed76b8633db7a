"""A recipe carried out: its models are read, merged in as many stages as it has, and written as one new folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.errors import BadInput
from harness.exhausted import full_disk, said_of_room
from harness.models.confined import check_confined
from harness.models.settings import read_object
from harness.recipes.adapter_recipes import base_of
from harness.recipes.adapters import adapt, weights_file
from harness.recipes.card import hashes, write_card
from harness.recipes.companions import CONFIG, Companions, read_companions, write_companions
from harness.recipes.document import Recipe, read
from harness.recipes.planning import Planned, plan
from harness.recipes.references import Reference
from harness.recipes.vocabularies import Aligned, Model, align_rows, align_tokens
from harness.streaming.engine import MEMORY, Written, write
from harness.streaming.output import SHARD_BYTES, check_free, whole
from harness.streaming.plan import Source
from harness.streaming.shards import read_folder, read_header

Say = Callable[[str, int, int], None]
"""Told the words for a stage, how many bytes of it are done, and how many there will be."""


@dataclass(frozen=True)
class Options:
    """How a recipe is carried out."""

    seed: int = 0
    hashes: bool = True
    """Whether the card has the sha256 of the files that went in and came out."""
    shard_bytes: int = SHARD_BYTES
    memory: int = MEMORY
    threads: int | None = None
    adapter_rank: int | None = None
    """The largest rank of an adapter that is written in place of a whole model."""


@dataclass(frozen=True)
class Merged:
    """What was done."""

    files: tuple[Path, ...]
    """With the weights of the result."""
    bytes_read: int
    bytes_written: int
    adapter: tuple[str, ...] = ()
    """Where the result is one: how it was written, and how near it is to the merge, in sentences."""


@dataclass(frozen=True)
class _Stage:
    """A merge that is ready to be written: nothing that its models say can stop it any more."""

    recipe: Recipe
    planned: Planned
    companions: Companions

    @property
    def words(self) -> str:
        return f"{self.recipe.rule.name}{f' ({self.recipe.name})' if self.recipe.name else ''}"


@dataclass
class _Models:
    """The models of a recipe's file: folders that are there, and stages as soon as they are written."""

    made: dict[str, Path] = field(default_factory=dict)
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """Of weights, by the texts of models that were not made here."""

    def folder(self, model: Reference) -> Path:
        """Where a model is."""
        if model.stage is not None:
            return self.made[model.stage]
        assert model.folder is not None
        return model.folder

    def read(self, model: Reference) -> Model:
        """A model's tensors, an adapter's added, and its configuration."""
        path = self.folder(model)
        if not (path / CONFIG).is_file():
            raise BadInput("config.json is missing", place=str(path), hint="name a Hugging Face model folder")
        for each in (path, *([model.adapter] if model.adapter else [])):
            check_confined(each)
        config, stored = read_object(path / CONFIG), read_folder(path)
        tensors: Mapping[str, Source] = stored.tensors
        files = stored.files if model.stage is None else ()
        if model.adapter is not None:
            file = weights_file(model.adapter)
            adapted = adapt(stored.tensors, config, model.adapter, read_header(file))
            tensors, files = adapted.tensors, (*files, file)
            config = {**config, "tie_word_embeddings": False} if adapted.untied else config
        if files:
            self.files[model.text] = files
        return Model(path, config, tensors)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """What the system refuses, such as to read a file, is bad input."""
    try:
        yield
    except OSError as error:
        if full := full_disk(error):
            hint = "make room, or name a folder elsewhere: nothing is left of this merge"
            raise BadInput(said_of_room(full), hint=hint) from None
        raise BadInput(error.strerror or str(error), place=error.filename and str(error.filename)) from None


@_in_one_line()
def merge_recipe(path: Path, out: Path, options: Options, say: Say | None = None) -> Merged:
    """Write the folder that a recipe describes: of a whole model, or of an adapter on the folder that its models share.

    All models that are there are looked at before anything is computed. Stages are folders within the new one until the
    result is written, which has its name only when it is whole.

    Args:
        path: the recipe's file.
        out: the new folder, which does not exist or is empty.
        options: how.
        say: told of the progress.

    Raises:
        BadInput: a fault of the recipe, of a model, or of the place to write to; nothing is left behind.
    """
    recipes = read(path)
    base = None if options.adapter_rank is None else base_of(recipes)
    check_free(out)
    models = _Models()
    for model in (model for recipe in recipes[1:] for model in recipe.models if model.stage is None):
        models.read(model)
    read_bytes = written_bytes = 0
    with whole(out) as folder, _scratch(folder) as scratch:
        for number, recipe in enumerate(recipes):
            last = recipe is recipes[-1]
            target = folder if last else scratch / f"stage-{number}"
            rows = scratch / f"rows-{number}"
            rows.mkdir(parents=True)
            target.mkdir(exist_ok=True)
            stage = _prepared(recipe, models, rows, options.seed)
            done, sentences = _written(stage, target, options, base, say)
            read_bytes, written_bytes = read_bytes + done.bytes_read, written_bytes + done.bytes_written
            if recipe.name is not None:
                models.made[recipe.name] = target
            shutil.rmtree(rows)
        _card(folder, path, out, recipes, models, done, options, sentences, say)
    return Merged(tuple(out / file.name for file in done.files), read_bytes, written_bytes, sentences)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for what is needed in between."""
    scratch = folder / ".scratch"
    scratch.mkdir()
    yield scratch
    shutil.rmtree(scratch)


def _prepared(recipe: Recipe, known: _Models, scratch: Path, seed: int) -> _Stage:
    models = {model.text: known.read(model) for model in recipe.models}
    aligned = _aligned(recipe, models, known, scratch)
    planned = plan(recipe, {text: Model(each.folder, each.config, aligned.tensors[text])
                            for text, each in models.items()}, seed)  # fmt: skip
    donor = models[planned.donor]
    tied = planned.tied if donor.config.get("tie_word_embeddings") or not planned.tied else None
    companions = read_companions(
        donor.folder,
        donor.config,
        layers=planned.taken or None,
        tied=tied,
        dtype=planned.plan.steps[0].dtype,
        vocabulary=aligned.rows,
        token_ids=aligned.token_ids,
        chat_template=recipe.chat_template,
        models=[model.folder for model in models.values()],
        tokenizer=aligned.tokenizer,
        place=recipe.place(("chat_template",)),
    )
    return _Stage(recipe, planned, companions)


def _aligned(recipe: Recipe, models: Mapping[str, Model], known: _Models, scratch: Path) -> Aligned:
    """The models' tensors with the same rows for the same tokens, as the recipe says."""
    base = recipe.base.text if recipe.base else None
    if recipe.tokenizer is None:
        return align_rows(models, base, recipe.vocabulary or "refuse", scratch)
    key = "tokenizer" if "tokenizer" in recipe.document.value else "tokenizer_source"
    place = recipe.place((key,))
    if recipe.vocabulary is not None:
        raise BadInput(f"both '{key}' and 'vocabulary'", place=place, hint="the tokenizer says which tokens there are")
    source = recipe.tokenizer.source
    folder = known.folder(source) if isinstance(source, Reference) else None
    return align_tokens(models, base, recipe.tokenizer, scratch, source=folder, place=place)


def _written(
    stage: _Stage, folder: Path, options: Options, base: Reference | None, say: Say | None
) -> tuple[Written, tuple[str, ...]]:
    """Write a whole model, or an adapter on a base, which has something to be told of it."""
    steps = stage.planned.plan
    progress = None
    if say is not None:
        whole_bytes, done = sum(step.nbytes for step in steps.steps), 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            say(stage.words, done, whole_bytes)

    if base is not None and options.adapter_rank is not None:
        from harness.recipes.adapter_results import write_adapter

        adapters = list(dict.fromkeys(model.adapter for model in stage.recipe.models if model.adapter is not None))
        try:
            adapted = write_adapter(steps.steps, base, adapters, options.adapter_rank, folder, threads=options.threads,
                                    progress=progress)  # fmt: skip
        except BadInput as fault:
            raise fault.at(stage.recipe.place(("models",))) from None
        return adapted.written, adapted.sentences
    written = write(steps, folder, threads=options.threads, shard_bytes=options.shard_bytes, memory=options.memory,
                    progress=progress)  # fmt: skip
    write_companions(folder, stage.companions)
    return written, ()


def _card(
    folder: Path,
    path: Path,
    out: Path,
    recipes: tuple[Recipe, ...],
    models: _Models,
    done: Written,
    options: Options,
    sentences: tuple[str, ...],
    say: Say | None,
) -> None:
    from harness import __version__

    inputs = [file for files in models.files.values() for file in files]
    notes = [f"Drawn at random, with --seed {options.seed}."] if any(recipe.rule.random for recipe in recipes) else []
    write_card(
        folder,
        title=out.resolve().name,
        recipes=recipes,
        text=path.read_text(encoding="utf-8-sig"),
        inputs=models.files,
        outputs=done.files,
        known=hashes([*inputs, *done.files], say and partial(say, "sha256")) if options.hashes else {},
        version=__version__,
        notes=[*notes, *sentences],
        adapter_rank=options.adapter_rank,
    )
