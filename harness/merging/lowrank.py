"""Differences of weights as products of two thin matrices: the best of a rank, and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

WHOLE = 1024
"""Up to so many rows or columns, whichever are fewer, all singular vectors are found at once."""
MORE = 8
"""By how many vectors more than are wanted an iteration works at a time."""
FEWEST_BLOCKS = 4
"""For how many of those there must be room."""
GROWTH = 1e-10
"""An iteration ends when what the vectors hold of the squared norm grows by a smaller share."""


@dataclass(frozen=True)
class Factors:
    """The best approximation of a matrix by one of a given rank, and how good it is."""

    up: Tensor
    """[rows, rank], in float32."""
    down: Tensor
    """[rank, columns], in float32; ``up @ down`` is the approximation, and both have the same norm."""
    norm: float
    """The Frobenius norm of what was approximated."""
    left: float
    """That of what the product leaves out."""

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def error(self) -> float:
        """What is left out, relative to what was approximated."""
        return self.left / self.norm if self.norm else 0.0


def factorise(difference: Tensor, rank: int, noise: float = 0.0) -> Factors:
    """The truncated singular value decomposition, of a smaller rank where that leaves nothing but noise.

    Eckart and Young 1936: no matrix of this rank is nearer. The singular vectors are those of the smaller of the two
    Gram matrices, in float64: what squaring loses lies below a millionth of the largest singular value, and it takes a
    third of the time. Of large matrices they are found by iteration (``_iterated``). The same matrix gives the same
    factors: nothing is left to chance, and the largest entry of each vector is positive.

    Args:
        difference: [rows, ...], read as a matrix [rows, columns].
        rank: the largest that the factors may have, at least 1.
        noise: singular values up to this are taken for rounding (``rounding``).
    """
    matrix = difference.detach().double().flatten(1)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    vectors = _leading(wide, rank)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
    others = vectors.T @ wide  # [rank, long]: its rows have the singular values as their lengths
    values = others.norm(dim=1)
    squared_away = (torch.finfo(torch.float64).eps * len(wide)) ** 0.5 * float(values.max())
    kept = values > max(noise, squared_away)
    root = values[kept].sqrt()
    short, long = vectors[:, kept] * root, others[kept] / root[:, None]
    up, down = (short, long) if wide is matrix else (long.T, short.T)
    up, down = up.float().contiguous(), down.float().contiguous()
    left = (matrix - up.double() @ down.double()).norm()
    return Factors(up, down, float(matrix.norm()), float(left))


def _leading(wide: Tensor, rank: int) -> Tensor:
    """The left singular vectors [short, rank] of a matrix [short, long], those of the largest values first."""
    block = rank + MORE
    if len(wide) > WHOLE and FEWEST_BLOCKS * block <= len(wide) // 2:
        return _iterated(wide, rank, block)
    return torch.linalg.eigh(wide @ wide.T).eigenvectors.flip(1)[:, :rank]


def _iterated(wide: Tensor, rank: int, block: int) -> Tensor:
    """``_leading`` by block Lanczos from a fixed start, until what the vectors hold no longer grows.

    Musco and Musco 2015, arXiv:1504.05477: whatever the gaps between the singular values, the norm of what is left out
    comes near to the least one. The basis grows to at most half of the space.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(wide.shape[1], block, generator=generator, dtype=wide.dtype)
    basis = torch.linalg.qr(wide @ start).Q  # [short, K]
    images = basis.T @ wide  # [K, long]
    held = 0.0
    while True:
        values, turns = torch.linalg.eigh(images @ images.T)
        before, held = held, float(values[-rank:].sum())
        if held - before <= GROWTH * held or basis.shape[1] + block > len(wide) // 2:
            return basis @ turns.flip(1)[:, :rank]
        fresh = wide @ images[-block:].T
        for _ in range(2):  # once leaves what rounding brought back
            fresh = torch.linalg.qr(fresh - basis @ (basis.T @ fresh)).Q
        basis, images = torch.cat([basis, fresh], dim=1), torch.cat([images, fresh.T @ wide])


def factorise_product(up: Tensor, down: Tensor, rank: int) -> Factors:
    """What ``factorise`` gives for ``up @ down``, which is never made: only thin matrices are decomposed.

    The singular values are those of what QR decompositions of both leave between them [K, K]. Where the product's own
    rank is no larger than ``rank`` the result has it, and is exact but for the rounding of the factors.

    Args:
        up: [rows, K], such as the factors of several adapters side by side.
        down: [K, columns].
        rank: the largest that the result may have, at least 1.
    """
    up, down = up.detach().double(), down.detach().double()
    (rows, of_rows), (columns, of_columns) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    left, values, right = torch.linalg.svd(of_rows @ of_columns.T, full_matrices=False)
    lost = torch.finfo(torch.float64).eps * max(len(rows), len(columns)) * float(of_rows.norm() * of_columns.norm())
    kept = int((values > lost).sum().clamp(max=rank))
    short, long = rows @ left[:, :kept], right[:kept] @ columns.T  # [rows, rank], [rank, columns]: of length 1
    signs = short.gather(0, short.abs().argmax(dim=0, keepdim=True)).sign()
    root = values[:kept].sqrt()
    short, long = (short * signs * root).float().contiguous(), (long * signs.T * root[:, None]).float().contiguous()
    missed = _norm_of_product(torch.cat([up, -short.double()], dim=1), torch.cat([down, long.double()]))
    return Factors(short, long, _norm_of_product(up, down), missed)


def _norm_of_product(up: Tensor, down: Tensor) -> float:
    """The Frobenius norm of ``up @ down``, without it."""
    return float((torch.linalg.qr(up, mode="r").R @ torch.linalg.qr(down.T, mode="r").R.T).norm())


def rounding(start: Tensor) -> float:
    """What the singular values of a difference from ``start`` may be by rounding alone.

    Each entry of a sum with ``start`` is rounded to float32, by at most half a unit in its last place; twice that, for
    a merge may round twice. A matrix changed entry by entry has its singular values changed by no more than the norm of
    the change (Weyl).
    """
    return float(torch.finfo(torch.float32).eps * start.detach().double().norm())


def total_error(pieces: Iterable[Factors]) -> float:
    """The relative Frobenius error of several differences taken as one."""
    chosen = list(pieces)
    norm = math.hypot(*(each.norm for each in chosen))
    return math.hypot(*(each.left for each in chosen)) / norm if norm else 0.0
