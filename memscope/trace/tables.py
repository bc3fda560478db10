"""Frozen tables of equal-length, read-only columns: the parts a :class:`~memscope.trace.trace.Trace` is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from memscope.errors import InvariantError
from memscope.trace import schema
from memscope.trace.schema import NONE_ID

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
Int16Array = npt.NDArray[np.int16]
Int8Array = npt.NDArray[np.int8]
BoolArray = npt.NDArray[np.bool_]


def frozen_array(values: Any, dtype: Any) -> npt.NDArray[Any]:
    """Return the values as a contiguous read-only array of the dtype, copying only where that is needed."""
    array = np.ascontiguousarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def rank_rows(*columns: npt.NDArray[np.integer[Any]]) -> Int32Array:
    """Number the rows of equal-length columns by value, in ascending order of the first, then the next.

    What ``np.unique(..., axis=1, return_inverse=True)`` gives, which sorts rows as bytes, twenty times slower.

    Returns
    -------
    int32 (rows,)
        From 0, equal for equal rows.

    Raises
    ------
    InvariantError
        If there are more rows than 32 bits can number.
    """
    rank = np.empty(0, np.int32)
    for position, column in enumerate(columns):
        if len(column) > np.iinfo(np.int32).max:
            raise InvariantError(f"{len(column):,} rows are more than can be numbered")
        number, n_values = _rank(column)
        rank = _rank(rank.astype(np.int64) * n_values + number)[0] if position else number
    return rank


def _rank(values: npt.NDArray[np.integer[Any]]) -> tuple[Int32Array, int]:
    """Each value's place among the distinct ones, and how many those are; with a third of np.unique's memory."""
    order = np.argsort(values)
    in_order = values[order]
    is_next = in_order[1:] != in_order[:-1]
    del in_order
    rank = np.zeros(len(values), np.int32)
    rank[order[1:]] = np.cumsum(is_next, dtype=np.int32)
    return rank, int(np.count_nonzero(is_next)) + 1


@dataclass(frozen=True, slots=True)
class Table:
    """Equal-length columns, one frozen array for each field; ``len()`` is the number of rows."""

    COLUMNS: ClassVar[schema.Columns]

    def __post_init__(self) -> None:
        length = -1
        for name, dtype in self.COLUMNS.items():
            column = frozen_array(getattr(self, name), dtype)
            object.__setattr__(self, name, column)
            if column.ndim != 1 or (length >= 0 and len(column) != length):
                raise InvariantError(f"{type(self).__name__}.{name} has shape {column.shape}, expected ({length},)")
            length = len(column)

    def __len__(self) -> int:
        return len(getattr(self, next(iter(self.COLUMNS))))

    @classmethod
    def empty(cls) -> Self:
        """A table of no rows."""
        return cls(**{name: np.empty(0, dtype) for name, dtype in cls.COLUMNS.items()})

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Self:
        """Build from a mapping that has every column; others in it are ignored."""
        return cls(**{name: columns[name] for name in cls.COLUMNS})

    @classmethod
    def stacked(cls, tables: Iterable[Self]) -> Self:
        """The rows of several tables, one after the other."""
        parts = [cls.empty(), *tables]
        return cls(**{name: np.concatenate([getattr(table, name) for table in parts]) for name in cls.COLUMNS})

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name."""
        return {name: getattr(self, name) for name in self.COLUMNS}

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """A table of the rows chosen, by positions or by a boolean mask."""
        return type(self)(**{name: column[rows] for name, column in self.columns().items()})


@dataclass(frozen=True, slots=True)
class SegmentTable(Table):
    """Segments: memory that came from the driver in one piece, or one contiguous mapped run if expandable."""

    COLUMNS: ClassVar[schema.Columns] = schema.SEGMENT_COLUMNS
    device: Int16Array
    address: Int64Array
    size_bytes: Int64Array
    stream_id: Int32Array
    pool_id: Int32Array
    is_large: BoolArray
    is_expandable: BoolArray
    stack_id: Int32Array


@dataclass(frozen=True, slots=True)
class BlockTable(Table):
    """Blocks: the parts that tile the segments, ordered by segment and address.

    ``requested_bytes`` of an inactive block is 0 here: what torch writes there is a stale leftover.
    """

    COLUMNS: ClassVar[schema.Columns] = schema.BLOCK_COLUMNS
    segment_id: Int32Array
    address: Int64Array
    size_bytes: Int64Array
    requested_bytes: Int64Array
    state: Int8Array
    stack_id: Int32Array


@dataclass(frozen=True, slots=True)
class SampleTable(Table):
    """The device's own count at some moments (NVML, cudaMemGetInfo, an OOM's ``device_free``).

    A sample was taken before the event whose position it carries. ``process_used_bytes`` is the recorded process's own
    part of what is used on the device, ``others_used_bytes`` that of all other processes.
    """

    COLUMNS: ClassVar[schema.Columns] = schema.SAMPLE_COLUMNS
    event: Int64Array
    time_ns: Int64Array
    device: Int16Array
    device_free_bytes: Int64Array
    device_used_bytes: Int64Array
    process_used_bytes: Int64Array
    others_used_bytes: Int64Array


@dataclass(frozen=True, slots=True)
class MarkTable(Table):
    """Steps and phases, in order of events; each mark stands before the event it names."""

    COLUMNS: ClassVar[schema.Columns] = schema.MARK_COLUMNS
    event: Int64Array
    time_ns: Int64Array
    kind: Int8Array
    label_id: Int32Array


@dataclass(frozen=True, slots=True)
class OwnerTable(Table):
    """Allocations whose owner was seen at capture, ascending by ``alloc_event``, then ``device`` and ``address``.

    An allocation is named by the event that made it; one that predates the events, by where it lay before the first.

    ``category`` holds :class:`memscope.trace.categories.Category` values, ``label_id`` the owner's name
    (``model.layers.3.mlp.up_proj.weight``), ``tagged`` is true where the user's own tag decided. ``tensor_id`` is the
    text of the type and shape of the tensor that fills it (``float32 [32000, 4096]``), −1 where that was not seen.
    """

    COLUMNS: ClassVar[schema.Columns] = schema.OWNER_COLUMNS
    alloc_event: Int64Array
    device: Int16Array
    address: Int64Array
    category: Int8Array
    label_id: Int32Array
    tagged: BoolArray
    tensor_id: Int32Array


@dataclass(frozen=True, slots=True)
class CacheLayerTable(Table):
    """How the layers of key/value caches keep their tokens, in order of events; a later row replaces an earlier one.

    A row holds from the event on whose position it carries, for one layer of one cache on one device. Caches are
    numbered in the order in which they were first seen. ``kind_id`` is the text of the layer's kind (a class's name),
    ``key_token_bytes`` and ``value_token_bytes`` what one token of one of the ``n_sequences`` takes (−1 where that is
    not the same for every token, as in quantised layers), ``capacity_tokens`` what is allocated for each sequence
    (−1: it grows), ``window_tokens`` how many of the last tokens are kept (−1: all).
    """

    COLUMNS: ClassVar[schema.Columns] = schema.CACHE_LAYER_COLUMNS
    event: Int64Array
    device: Int16Array
    cache_id: Int32Array
    layer: Int32Array
    kind_id: Int32Array
    n_sequences: Int32Array
    key_token_bytes: Int64Array
    value_token_bytes: Int64Array
    capacity_tokens: Int64Array
    window_tokens: Int64Array


@dataclass(frozen=True, slots=True)
class CacheLengthTable(Table):
    """Tokens of each sequence that a key/value cache has taken in, in order of events.

    A row holds from the event on whose position it carries; ``n_tokens`` is −1 where it could not be told.
    """

    COLUMNS: ClassVar[schema.Columns] = schema.CACHE_LENGTH_COLUMNS
    event: Int64Array
    time_ns: Int64Array
    device: Int16Array
    cache_id: Int32Array
    n_tokens: Int64Array


@dataclass(frozen=True, slots=True)
class StackTable:
    """Call stacks as runs of interned frames, innermost frame first.

    Stack ``s`` is ``frame_ids[offsets[s]:offsets[s + 1]]``; a frame's name and file are indices into the trace's
    strings.
    """

    offsets: Int64Array
    frame_ids: Int32Array
    name_id: Int32Array
    filename_id: Int32Array
    line: Int32Array

    def __post_init__(self) -> None:
        for field, dtype in zip(fields(self), (np.int64, np.int32, np.int32, np.int32, np.int32), strict=True):
            object.__setattr__(self, field.name, frozen_array(getattr(self, field.name), dtype))
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.frame_ids):
            raise InvariantError("StackTable.offsets does not cover frame_ids")
        if np.any(self.offsets[1:] < self.offsets[:-1]):
            raise InvariantError("StackTable.offsets goes back")
        if not len(self.name_id) == len(self.filename_id) == len(self.line):
            raise InvariantError("StackTable's frame columns differ in length")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def empty(cls) -> Self:
        """No stacks at all."""
        none = np.empty(0, np.int32)
        return cls(offsets=np.zeros(1, np.int64), frame_ids=none, name_id=none, filename_id=none, line=none)

    @property
    def n_frames(self) -> int:
        """Number of distinct frames."""
        return len(self.line)

    def frames_of(self, stack_id: int) -> Int32Array:
        """Frame ids of a stack, innermost first; none for ``NONE_ID``."""
        if stack_id == NONE_ID:
            return self.frame_ids[:0]
        return self.frame_ids[self.offsets[stack_id] : self.offsets[stack_id + 1]]
