"""Floating-point operations of whatever runs: torch's counter, with formulas for operators that it passes over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

Shape = Sequence[int]


def count(work: Callable[[], object]) -> int:
    """Operations of matrix products, convolutions and attention while ``work`` runs without gradients.

    A multiply-add is 2; causal attention counts as full attention, as torch's own formulas have it.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    quick = torch.backends.mha.get_fastpath_enabled()  # one operator for a whole layer of attention, without a formula
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(quick)
    return counter.get_total_flops()


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _matrix_vector(matrix: Shape, vector: Shape, *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _added_matrix_vector(added: Shape, matrix: Shape, vector: Shape, *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _dot(one: Shape, other: Shape, *_: Any, **__: Any) -> int:
    return 2 * one[0]


def _distances(left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """[N, D] and [K, D]: a difference, its square and a sum for each number of each pair."""
    return 3 * left[-2] * right[-2] * left[-1]


def _grouped(left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """[M, K] x [G, K, N], [G, M, K] x [K, N] and [M, K] x [K, N], each split into G groups, or [G, M, K] x [G, K, N].

    Every row, column or inner index that is split belongs to one group, so the number of groups counts only where
    nothing is split.
    """
    groups = left[0] if len(left) == len(right) == 3 else 1
    return 2 * groups * left[-2] * left[-1] * right[-1]


def _product(left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """[M, K] x [K, N]; of a sparse matrix only the numbers (of blocks: whole blocks) that it stores are multiplied."""
    if left.layout in SPARSE:
        return 2 * left.values().numel() * right.shape[-1]
    return 2 * left.shape[0] * left.shape[1] * right.shape[-1]


_product._get_raw = True  # type: ignore[attr-defined]  # tensors, not shapes: how torch's counter is told
SPARSE = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def _formulas() -> dict[Any, Callable[..., int]]:
    """Attention is fused on a CPU too, and experts of transformers run as one grouped product."""
    aten = torch.ops.aten
    known: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_fused_attention_overrideable: _attention,
        aten._grouped_mm: _grouped,
        aten.mm: _product,
        aten.mv: _matrix_vector,
        aten.addmv: _added_matrix_vector,
        aten.dot: _dot,
        aten._cdist_forward: _distances,
    }
    if hasattr(torch.ops.transformers, "grouped_mm_fallback"):  # registered where transformers has been imported
        known[torch.ops.transformers.grouped_mm_fallback] = _grouped
    return known
