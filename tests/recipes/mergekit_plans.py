"""mergekit's own plan of a recipe: for each tensor the stored tensors that it is made of, and their parameters."""

from __future__ import annotations

from typing import Any

import yaml
from mergekit.architecture import get_architecture_info
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache, LoadTensor
from mergekit.merge import _model_out_config
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner

Made = dict[str, Any]
"""Of a tensor: "sources" (model, name in its file), the "base", the "shared" parameters, and those of "each" source."""


def mergekit_plan(text: str) -> dict[str, Made]:
    """By tensor of the output; folders are relative to the working directory."""
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    options = MergeOptions()
    cache = LoaderCache()
    cache.setup(options)
    cache.loaders.clear()  # of folders with the same names elsewhere
    architecture = get_architecture_info(config, options)
    planner = MergePlanner(config, architecture, options, _model_out_config(config, architecture))
    planner._plan()
    return {weight.name: _made(task, cache) for weight, task in planner._tensors}


def _made(task: Any, cache: LoaderCache) -> Made:
    sources = {}
    for model in task.model_order:
        info = task.gather_tensors.weight_info[model]
        load = LoadTensor(model=model, tensor=info.name, aliases=info.aliases, tied_names=info.tied_names)
        if (stored := load._resolve_name(cache.get(model))) is not None:
            sources[model] = stored
    return {
        "sources": [(str(model.model.path), name) for model, name in sources.items()],
        "base": str(task.base_model) if task.base_model else None,
        "shared": dict(task.parameters.items()),
        "each": [dict(task.input_parameters[model].items()) for model in sources],
    }
