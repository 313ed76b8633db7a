"""Small networks for rows of numbers, which train in seconds: their logits [B, classes] are what they return."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from harness.models.training import Schedule
from harness.moe.layer import classifier_layer


class TableMLP(nn.Module):
    """Hidden linear layers with dropout; logits [B, classes] for rows [B, features].

    ``experts`` makes the last hidden layer a sparse mixture of experts.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        hidden: int = 192,
        depth: int = 2,
        dropout: float = 0.1,
        experts: int = 0,
        active: int = 2,
        routing: str = "sparse",
        dispatch: str | None = None,
        balance: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = [features, *[hidden] * (depth - 1)]
        trunk: list[nn.Module] = []
        for size in sizes[:-1]:
            trunk += [nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.trunk = nn.Sequential(*trunk)
        self.hidden: nn.Module = nn.Linear(sizes[-1], hidden)
        if experts:
            self.hidden = classifier_layer(
                sizes[-1],
                hidden,
                experts=experts,
                k=active,
                routing=routing,
                dispatch=dispatch,
                balance_weight=balance,
            )
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.hidden(self.trunk(rows)))


class ResidualBlock(nn.Module):
    """What two linear layers add to their input [B, width]."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.Dropout(dropout)
        )

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.layers(rows)


class ResidualMLP(nn.Module):
    """Residual blocks between two linear layers; logits [B, classes] for rows [B, features]."""

    def __init__(self, *, features: int, classes: int, hidden: int = 128, depth: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        blocks = [ResidualBlock(hidden, dropout) for _ in range(depth)]
        self.layers = nn.Sequential(nn.Linear(features, hidden), *blocks, nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


def table_mlp_wide(*, features: int, classes: int, hidden: int = 256, depth: int = 2, dropout: float = 0.1) -> TableMLP:
    """The same, a third wider."""
    return TableMLP(features=features, classes=classes, hidden=hidden, depth=depth, dropout=dropout)


def table_mlp_deep(*, features: int, classes: int, hidden: int = 192, depth: int = 3, dropout: float = 0.1) -> TableMLP:
    """The same, a layer deeper: with more, dropout keeps it from learning anything in as few epochs."""
    return TableMLP(features=features, classes=classes, hidden=hidden, depth=depth, dropout=dropout)


def table_schedule(epochs: int) -> Schedule:
    """One cycle to a high rate, in larger batches than images have: a step of such a network is mostly overhead."""
    return Schedule(epochs, lr=8e-3, batch_size=128, decay="cycle")


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "table_mlp": TableMLP,
    "table_mlp_wide": table_mlp_wide,
    "table_mlp_deep": table_mlp_deep,
    "residual_mlp": ResidualMLP,
}
"""By the name that a suite gives."""
