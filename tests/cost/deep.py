"""A script: three members of 83 MB in many small tensors, an ensemble of them and a merge, and what each needs.

Arguments: a folder, "prepare" or the name of a variant, and the device. It prints JSON.
"""

DEEP = """
import json, sys, torch
from pathlib import Path
from torch import nn
from harness.systems.systems import MemberPart, OutputCombination, SingleModel, load_combination
from harness.systems.rules import Linear
from harness.cost.memory import peak_memory
from harness.systems.fitting import uniform
from harness.models.architectures import build
from harness.models.image_networks import NETWORKS
from harness.models.weights import LazyWeights, save_weights
from harness.types import Architecture, Member, Pool

torch.set_num_threads(1)
NETWORKS["deep"] = lambda **_: nn.Sequential(*(nn.Linear(400, 400) for _ in range(130)))
architecture, folder, device = Architecture("deep"), Path(sys.argv[1]), torch.device(sys.argv[3])

def member(i):
    return Member(f"m{i}", architecture, LazyWeights(folder / f"{i}.safetensors"), "s", 0, {}, f"m{i}")

def prepare():
    for i in range(3):
        module = build(architecture)
        save_weights(module.state_dict(), folder / f"{i}.safetensors")
    members = [member(i) for i in range(3)]
    systems = {
        "ensemble": OutputCombination([MemberPart(m) for m in members], Linear(uniform(3))),
        "merge": SingleModel(architecture, module),
        "member": OutputCombination([MemberPart(members[1])], Linear(uniform(1))),
    }
    for name, system in systems.items():
        (folder / name).mkdir()
        system.save(folder / name)
    return sum(parameter.numel() * 4 for parameter in module.parameters())

def needed(name):
    def work():
        found = load_combination(folder / name, pool, device)
        with torch.inference_mode():
            found.log_probs(torch.zeros(20, 400))
    found = peak_memory(work, device, warm_up=work)
    return {"working": found.working_bytes, "peak": found.peak_bytes, "source": found.source}

if sys.argv[2] == "prepare":
    print(prepare())
else:
    pool = Pool("deep", "fine_tunes", tuple(member(i) for i in range(3)))
    print(json.dumps(needed(sys.argv[2])))
"""
