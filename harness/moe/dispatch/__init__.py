"""The paths on which rows reach their experts, one file each; all give what the dense reference gives."""

from harness.moe.dispatch import dense, grouped, index, sorted, sparse, sparse_blocks

__all__ = ["dense", "grouped", "index", "sorted", "sparse", "sparse_blocks"]
