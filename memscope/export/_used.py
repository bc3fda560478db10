"""A trace without the stacks, frames and texts that nothing of it names, such as those of events that were cut off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array, StackTable
from memscope.trace.trace import Trace


class _Kept:
    """Which of so many ids are named, and what they become: they keep their order."""

    def __init__(self, n: int, *columns: npt.NDArray[Any]) -> None:
        self.is_kept: BoolArray = np.zeros(n, np.bool_)
        for column in columns:
            self.is_kept[column[column != NONE_ID]] = True
        # The last place is what -1, none, stands for.
        self._new: Int32Array = np.append(np.cumsum(self.is_kept) - 1, NONE_ID).astype(np.int32)

    def __call__(self, column: npt.NDArray[Any]) -> Int32Array:
        new: Int32Array = self._new[column]
        return new


def only_used(trace: Trace) -> Trace:
    """The same trace without what nothing names. Linear in it."""
    stack = _Kept(len(trace.stacks), trace.stack_id, trace.segments.stack_id, trace.blocks.stack_id)
    stacks = _stacks(trace.stacks, stack.is_kept)
    labels = (trace.label_id, trace.marks.label_id, trace.owners.label_id, trace.owners.tensor_id)
    text = _Kept(len(trace.strings), stacks.name_id, stacks.filename_id, trace.cache_layers.kind_id, *labels)
    owners = replace(trace.owners, label_id=text(trace.owners.label_id), tensor_id=text(trace.owners.tensor_id))
    return replace(
        trace,
        stack_id=stack(trace.stack_id),
        segments=replace(trace.segments, stack_id=stack(trace.segments.stack_id)),
        blocks=replace(trace.blocks, stack_id=stack(trace.blocks.stack_id)),
        stacks=replace(stacks, name_id=text(stacks.name_id), filename_id=text(stacks.filename_id)),
        strings=tuple(name for name, is_kept in zip(trace.strings, text.is_kept.tolist(), strict=True) if is_kept),
        label_id=text(trace.label_id),
        marks=replace(trace.marks, label_id=text(trace.marks.label_id)),
        owners=owners,
        cache_layers=replace(trace.cache_layers, kind_id=text(trace.cache_layers.kind_id)),
    )


def _stacks(stacks: StackTable, is_kept: BoolArray) -> StackTable:
    """The stacks that are kept, and the frames of these."""
    lengths = np.diff(stacks.offsets)
    frame_ids = stacks.frame_ids[np.repeat(is_kept, lengths)]
    frame = _Kept(stacks.n_frames, frame_ids)
    return StackTable(
        offsets=np.concatenate([[0], np.cumsum(lengths[is_kept])]).astype(np.int64),
        frame_ids=frame(frame_ids),
        name_id=stacks.name_id[frame.is_kept],
        filename_id=stacks.filename_id[frame.is_kept],
        line=stacks.line[frame.is_kept],
    )
