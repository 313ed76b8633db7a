"""A task that is answered in writing, made from real text: which letter follows? And models that know a little."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

from harness.models.architectures import build
from harness.models.tokens import read_tokenizer
from harness.store import Store
from harness.systems.parts import MemberPart
from harness.tasks import text
from harness.tasks.corpora import split_of
from harness.types import Architecture, Member

UNTIL = ["\n", "."]
LETTER = [{"function": "regex", "regex_pattern": "([a-zA-Z])"}, {"function": "take_first"}]
SECOND = [{"function": "regex", "regex_pattern": "[a-zA-Z][^a-zA-Z]*([a-zA-Z])"}, {"function": "take_first"}]
EXACT = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}


def passages(count: int = 24) -> list[dict[str, str]]:
    """Passages of Python's own text that end inside a word, and its next letter."""
    whole = "".join(split_of("python", "test"))
    places = [match.start() + 3 for match in re.finditer(r" [a-z]{5,}", whole) if match.start() > 100]
    chosen = sorted(random.Random(0).sample(places, count))
    return [{"context": whole[place - 60 : place], "letter": whole[place]} for place in chosen]


def write_task(folder: Path, name: str = "letters", **changes) -> None:
    """The task in its own file, its passages beside it."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in passages()))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{letter}}",
        "generation_kwargs": {"until": UNTIL, "max_gen_toks": 6},
        "filter_list": [{"name": "first", "filter": LETTER}, {"name": "second", "filter": SECOND}],
        "metric_list": [EXACT],
        **changes,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False))


def write_tasks(folder: Path) -> None:
    """Every way in which a suite may ask of the passages: a file each, named for what is asked."""
    drawn = {"until": ["\n"], "max_gen_toks": 5, "do_sample": True, "temperature": 1.3}
    vote = [*LETTER[:1], {"function": "majority_vote"}, {"function": "take_first"}]
    voted = {"until": UNTIL, "max_gen_toks": 6, "do_sample": True, "temperature": 0.9, "top_p": 0.95, "top_k": 0}
    choices = {"output_type": "multiple_choice", "doc_to_choice": ["a", "e", "t"], "doc_to_target": 1}
    texts = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{context}}"}
    write_task(folder)
    write_task(folder, "several", repeats=2)
    write_task(folder, "stops", generation_kwargs={"until": ["e"], "max_gen_toks": 4})
    write_task(folder, "drawn", generation_kwargs=drawn, repeats=3)
    write_task(folder, "voted", generation_kwargs=voted, repeats=7, filter_list=[{"name": "maj@7", "filter": vote}])
    write_task(folder, "chrf", metric_list=[{"metric": "chrf"}, EXACT], filter_list=None)
    write_task(folder, "choices", metric_list=[{"metric": "acc"}], filter_list=None, **choices)
    write_task(folder, "texts", metric_list=[{"metric": "bits_per_byte"}], filter_list=None, **texts)


def small_domain(patch: pytest.MonkeyPatch) -> None:
    """Only the text that comes with the interpreter, and little of it."""
    patch.setattr(text, "DOMAINS", {"python": text.DOMAINS["python"]})
    patch.setattr(text, "TOKENIZER_CHARACTERS", 20_000)
    patch.setattr(text, "WINDOWS", {"train": 24, "heldout": 3, "test": 2})
    patch.setattr(text, "VOCABULARY", 300)


def architecture_for(task: text.TextTask, context: int = 512) -> Architecture:
    options = {"context": context, "heads": 2, "hidden": 32, "layers": 1, "vocab": task.vocabulary}
    return Architecture("tiny_llama", tuple(options.items()))


_TRAINED: dict[tuple[str, int], dict[str, torch.Tensor]] = {}


def trained_parts(task: text.TextTask, count: int = 3) -> list[MemberPart]:
    """Models of different starts, after a moment of training: they write letters, and not the same ones."""
    found = []
    for seed in range(count):
        if (task.train.digest, seed) not in _TRAINED:
            _TRAINED[task.train.digest, seed] = _trained(task, seed)
        weights = {name: tensor.clone() for name, tensor in _TRAINED[task.train.digest, seed].items()}
        member = Member(f"m{seed}", architecture_for(task), weights, "", seed, {}, f"m{seed}", task.heldout.tokenizer)
        found.append(MemberPart(member))
    return found


def _trained(task: text.TextTask, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    module = build(architecture_for(task))
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for rows in torch.randint(len(task.train.inputs), (120, 6)):
        windows = task.train.inputs[rows]
        loss = cross_entropy(module(windows).logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def store_of(factory: pytest.TempPathFactory) -> Path:
    """One store for all modules of tests: the tokenizer and the windows are made once."""
    return factory.getbasetemp() / "store of written tasks"


def load(folder: Path, store: Path, *names: str) -> text.TextTask:
    return text.load(text.TextReference("toy", names, str(folder)), Store(store), limit=None)


# A plain loop: one prompt at a time, the whole text again for every token, in float64.


def next_log_probs(models, tokens, mix):
    with torch.no_grad():
        each = [model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1) for model in models]
    return mix(torch.stack(each))


def plainly(task, parts, prompt, mix, draw=None, until=UNTIL, most=6):
    """The text that follows a prompt, its tokens' log-probabilities; greedy unless ``draw`` picks from these [V]."""
    words = read_tokenizer(task.tokenizer)
    models = [part.module.double() for part in parts]
    tokens, said, values = words.encode(prompt), [], []
    while len(said) < most:
        log_probs = next_log_probs(models, tokens + said, mix)
        said.append(int(log_probs.argmax()) if draw is None else draw(log_probs))
        values.append(float(log_probs[said[-1]]))
        if said[-1] == words.eos_token_id or any(stop in words.decode(said) for stop in until):
            break
    for part in parts:
        part.module.float()
    written = words.decode(said, skip_special_tokens=True)
    for stop in until:
        written = written.split(stop)[0]
    return written, values


def first_letter(written):
    """As the task's first filter extracts it."""
    found = re.findall("([a-zA-Z])", written)
    return found[0] if found else "[invalid]"


def mean(stacked):
    return stacked.exp().mean(dim=0).log()


def alone(stacked):
    return stacked[0]


def product(stacked):
    return stacked.mean(dim=0).log_softmax(-1)
