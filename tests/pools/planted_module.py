"""A user's own network: a file with the function that builds it, a file that it imports, and weights of it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

BUILD = "nets/net.py:build"
LAYERS = '''"""What the network is made of."""
from torch import nn


class Block(nn.Module):
    def __init__(self, features, width):
        super().__init__()
        self.layer = nn.Linear(features, width)

    def forward(self, rows):
        return self.layer(rows).relu()
'''
NET = '''"""A small network for images."""
import torch
from torch import nn
from layers import Block


class Net(nn.Module):
    def __init__(self, side, classes, width):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.block = Block(width * side * side, 2 * width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(2 * width, classes)

    def forward(self, images):
        seen = torch.relu(self.norm(self.conv(images)))
        return self.out(self.drop(self.block(seen.flatten(1))))


def build(side, classes, width=2):
    return Net(side, classes, width)
'''
SPEC = {"build": BUILD, "options": {"width": 4}, "base": "base.safetensors",
        "members": ["one.safetensors", "two.safetensors"]}  # fmt: skip


class Twin(nn.Module):
    """The same network, written once more: tests run it by hand."""

    def __init__(self, width: int = 4, side: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.block = nn.ModuleDict({"layer": nn.Linear(width * side * side, 2 * width)})
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(2 * width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.norm(self.conv(images))).flatten(1)
        return self.out(self.drop(self.block["layer"](seen).relu()))


def write_code(folder: Path, marker: Path | None = None, net: str = NET) -> None:
    """The user's two files; with ``marker`` whatever runs them leaves that file."""
    (folder / "nets").mkdir(exist_ok=True)
    runs = f"open({str(marker)!r}, 'w').close()\n" if marker else ""
    (folder / "nets/net.py").write_text(net + runs)
    (folder / "nets/layers.py").write_text(LAYERS + runs)


def twin(seed: int, near: nn.Module | None = None, **options: int) -> nn.Module:
    """Random weights and statistics, or those of a network and a little noise."""
    torch.manual_seed(seed)
    network = Twin(**options)
    if near is not None:
        network.load_state_dict(near.state_dict())
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn(tensor.shape).abs())
    return network.eval()


def write_pool(folder: Path, marker: Path | None = None) -> dict[str, nn.Module]:
    """The code, a base and two members; the networks by the name of their file."""
    write_code(folder, marker)
    networks = {"base": twin(0)}
    networks |= {name: twin(seed, networks["base"]) for seed, name in enumerate(("one", "two"), start=1)}
    for name, network in networks.items():
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    return networks
