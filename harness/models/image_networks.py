"""Small networks for images, which train in seconds: their logits [B, classes] are what they return."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.moe.layer import classifier_layer


class RectifiedPool(nn.Module):
    """ReLU and 2x2 max pooling: [B, C, H, W] to [B, C, H // 2, W // 2].

    In eval mode as element-wise maxima, which are the same numbers: on a CPU they take a third of the time of the
    pooling kernel, which also finds out where each maximum was.
    """

    def forward(self, images: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            return functional.max_pool2d(functional.relu(images), 2)
        rows, columns = images.shape[-2] // 2 * 2, images.shape[-1] // 2 * 2
        taller = torch.maximum(images[..., 0:rows:2, :], images[..., 1:rows:2, :])
        return torch.maximum(taller[..., 0:columns:2], taller[..., 1:columns:2]).relu_()


class SmallCNN(nn.Module):
    """Two convolutions and two linear layers with dropout; logits [B, classes] for images [B, 1, side, side].

    ``norm`` puts a BatchNorm after each convolution; ``experts`` makes the hidden layer a sparse mixture of experts.
    """

    def __init__(
        self,
        *,
        side: int,
        classes: int,
        width: int = 16,
        hidden: int = 64,
        dropout: float = 0.25,
        norm: bool = False,
        experts: int = 0,
        active: int = 2,
        routing: str = "sparse",
        dispatch: str | None = None,
        balance: float = 0.1,
    ) -> None:
        super().__init__()

        def stage(channels_in: int, channels_out: int) -> list[nn.Module]:
            layers: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=not norm)]
            if norm:
                layers.append(nn.BatchNorm2d(channels_out))
            return [*layers, RectifiedPool()]

        features = 2 * width * (side // 4) ** 2
        self.trunk = nn.Sequential(*stage(1, width), *stage(width, 2 * width), nn.Flatten(), nn.Dropout(dropout))
        self.hidden: nn.Module = nn.Linear(features, hidden)
        if experts:
            self.hidden = classifier_layer(
                features,
                hidden,
                experts=experts,
                k=active,
                routing=routing,
                dispatch=dispatch,
                balance_weight=balance,
            )
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.hidden(self.trunk(images)))


class MLP(nn.Module):
    """Two hidden linear layers with dropout; logits [B, classes] for images [B, 1, side, side]."""

    def __init__(self, *, side: int, classes: int, hidden: int = 128, dropout: float = 0.25) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(side * side, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@wraps(SmallCNN, assigned=(), updated=())
def small_cnn_bn(**options: Any) -> SmallCNN:
    """The same with BatchNorm."""
    return SmallCNN(norm=True, **options)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "small_cnn": SmallCNN, "small_cnn_bn": small_cnn_bn}
"""By the name that a suite gives."""
