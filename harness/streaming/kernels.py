"""The compiled functions of kernels.c and vectors.c, over ranges of a tensor; they run without the interpreter's lock.

``available`` says whether they were compiled; without them whole tensors are merged by torch (``definitions``).
"""

from __future__ import annotations

import copy
import ctypes
import importlib.util
import mmap
import os
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char, c_double, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64
from functools import cache
from typing import Any

from harness.errors import BadInput
from harness.streaming.plan import TensorAt

TYPES = {"F32": 0, "BF16": 1, "F16": 2}
"""The types that the compiled functions read and write, with their numbers there."""

LOW_BINS = 1 << 15
HIGH_BINS = 1 << 16
INFINITE = 0x7F800000
"""The magnitude bits of infinity, which no difference has."""


class Place(Structure):
    """Where a tensor's first element is: an open file, the number of its type, an offset in bytes."""

    _fields_ = (("fd", c_int32), ("type", c_int32), ("offset", c_int64))


class Member(Structure):
    """What is kept of a task vector, its weight and its factor; see ``vectors.c``."""

    _fields_ = (
        ("keep", c_int32),
        ("weight", c_float),
        ("factor", c_float),
        ("low", c_uint32),
        ("high", c_uint32),
        ("low_first", c_int64),
        ("low_last", c_int64),
        ("low_before", c_int64),
        ("high_first", c_int64),
        ("high_last", c_int64),
        ("high_before", c_int64),
        ("key", c_uint64),
        ("below", c_uint32),
    )


NOTHING, EVERYTHING, BETWEEN, DRAWN = range(4)
"""What a member may keep."""


class _Failure(Structure):
    _fields_ = (("kind", c_int32), ("source", c_int32), ("number", c_int32))


_Scratch = POINTER(c_char)
_Places = POINTER(Place)
_Members = POINTER(Member)
_Error = POINTER(_Failure)
_RANGE = (c_int64, c_int64, _Scratch)
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "scratch_bytes": (c_int64, (c_int,)),
    "block_elements": (c_int, ()),
    "convert": (c_int, (_Places, Place, *_RANGE, _Error)),
    "weighted_sum": (c_int, (_Places, c_int, POINTER(c_float), c_int, c_float, Place, *_RANGE, _Error)),
    "gram": (c_int, (_Places, c_int, c_int, *_RANGE, POINTER(c_double), _Error)),
    "nearswap": (c_int, (_Places, c_float, Place, *_RANGE, _Error)),
    "count_high": (c_int, (_Places, c_int, *_RANGE, POINTER(c_int64), _Error)),
    "count_low": (
        c_int,
        (_Places, c_int, POINTER(c_int32), POINTER(c_uint32), c_int, *_RANGE, POINTER(c_uint32), _Error),
    ),
    "find_high": (c_int, (POINTER(c_int64), c_int64, POINTER(c_int64))),
    "find_low": (c_int, (POINTER(POINTER(c_uint32)), c_int, c_int64, POINTER(c_int64), POINTER(c_int64))),
    "sum_magnitudes": (c_int, (_Places, _Members, c_int, *_RANGE, POINTER(c_double), _Error)),
    "merge_vectors": (c_int, (_Places, _Members, c_int, c_int, c_int, c_float, c_float, Place, *_RANGE, _Error)),
    "begin_writeback": (None, (c_int, c_int64, c_int64)),
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, if there are any."""
    found = importlib.util.find_spec("harness.streaming._kernels")
    if found is None or found.origin is None:
        return None
    try:
        loaded = ctypes.CDLL(found.origin)
    except OSError:  # compiled for another machine
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def available() -> bool:
    """Whether the functions were compiled when the package was built."""
    return library() is not None


def block_elements() -> int:
    """Ranges start at multiples of this, so that sums do not depend on how a tensor is divided."""
    return int(_functions().block_elements())


def _functions() -> ctypes.CDLL:
    loaded = library()
    assert loaded is not None, "asked for compiled functions where there are none"
    return loaded


class Scratch:
    """A thread's memory, which is used again for every range: fresh pages cost more than the arithmetic."""

    def __init__(self) -> None:
        self._memory: Any = None
        self._size = 0

    def of(self, sources: int) -> Any:
        """As much as functions of so many sources need."""
        size = int(_functions().scratch_bytes(sources))
        if size > self._size:
            self._memory = (c_char * size).from_buffer(mmap.mmap(-1, size))
            self._size = size
        return self._memory


class Sources:
    """The open files of a step's sources.

    Raises:
        BadInput: on opening, where a file is gone.
    """

    def __init__(self, name: str, tensors: Sequence[TensorAt]) -> None:
        self.name, self.tensors = name, tuple(tensors)
        self._files: dict[Any, int] = {}
        try:
            for tensor in tensors:
                if tensor.path not in self._files:
                    self._files[tensor.path] = os.open(tensor.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise BadInput(f"cannot be read: {error.strerror}", place=str(error.filename)) from None
        self.places = (Place * len(tensors))(
            *[Place(self._files[tensor.path], TYPES.get(tensor.dtype, -1), tensor.offset) for tensor in tensors]
        )

    def in_order(self, order: Sequence[int]) -> Sources:
        """Some of them in another order, in the same open files."""
        chosen = copy.copy(self)
        chosen.tensors = tuple(self.tensors[place] for place in order)
        chosen.places = (Place * len(order))(*[self.places[place] for place in order])
        return chosen

    def fd(self, tensor: TensorAt) -> int:
        """The open file that a tensor is in."""
        return self._files[tensor.path]

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])


def cut_off(tensor: TensorAt) -> BadInput:
    """The error of a file that ends before a tensor does."""
    problem = f"{tensor.path.name} ends within tensor '{tensor.name}'"
    return BadInput(problem, place=str(tensor.path.parent), hint="was it cut off, or changed meanwhile?")


def not_finite(tensor: TensorAt) -> BadInput:
    """The error of a tensor with NaN or infinity."""
    problem = f"tensor '{tensor.name}' of {tensor.path.name} has values that are NaN or infinite"
    return BadInput(problem, place=str(tensor.path.parent), hint="such weights cannot be merged")


def too_large(name: str) -> BadInput:
    """The error of a result that its type cannot hold."""
    problem = f"the merge of '{name}' has values that are too large for the type that is written"
    return BadInput(problem, hint="write another with out_dtype, such as bfloat16 or float32")


def call(function: str, sources: Sources, *arguments: Any) -> None:
    """Call one of the functions; what it reports is raised.

    Raises:
        BadInput: a file ends too early, NaN or infinity in a source, a result that its type cannot hold.
        OSError: reading or writing fails, with the file's name; a disk that is full among them.
    """
    failure = _Failure()
    if getattr(_functions(), function)(sources.places, *arguments, byref(failure)) == 0:
        return
    source = sources.tensors[failure.source]
    kinds = {2: cut_off, 4: not_finite}
    if failure.kind in kinds:
        raise kinds[failure.kind](source)
    if failure.kind == 5:
        raise too_large(sources.name)
    what = str(source.path) if failure.kind == 1 else f"tensor '{sources.name}'"
    raise OSError(failure.number, os.strerror(failure.number), what)


def begin_writeback(fd: int, offset: int, nbytes: int) -> None:
    """Let what was just written begin its way to the disk, where the system can."""
    _functions().begin_writeback(fd, offset, nbytes)


def kth_high(counts: Any, member: int, k: int) -> tuple[int, int]:
    """Of a member's counts by high bits, the bin with the k-th largest magnitude, and how many are in higher ones."""
    above = c_int64()
    own = ctypes.cast(byref(counts, member * HIGH_BINS * 8), POINTER(c_int64))
    return int(_functions().find_high(own, k, byref(above))), above.value


def kth_low(counts: Sequence[Any], bound: int, k: int) -> tuple[int, int, list[int]]:
    """Of each range's counts [bounds, LOW_BINS]: the k-th largest's low bits, how many are larger, equals by range."""
    above, equal = c_int64(), (c_int64 * len(counts))()
    rows = [ctypes.cast(byref(each, bound * LOW_BINS * 4), POINTER(c_uint32)) for each in counts]
    table = (POINTER(c_uint32) * len(counts))(*rows)
    return int(_functions().find_low(table, len(counts), k, byref(above), equal)), above.value, list(equal)
