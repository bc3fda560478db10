"""Stacks and texts of a snapshot, interned by content across events, segments and blocks."""

from __future__ import annotations

import numpy as np

from memscope._kernels import tape_format as vm
from memscope.errors import InputFileError
from memscope.trace.pickle_reader import Int32Array, Int64Array, Tape, dense_ids
from memscope.trace.schema import NONE_ID
from memscope.trace.snapshot_layout import FRAME_KEYS, TEXT_ID
from memscope.trace.tables import StackTable
from memscope.trace.tape_rows import TapeRows

_INT32 = np.iinfo(np.int32)


class TextTable:
    """The texts that a trace uses, out of the many of a tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._used = np.zeros(tape.n_texts, np.bool_)

    def use(self, text_ids: Int64Array) -> None:
        """Keep these texts; −1 is none."""
        self._used[text_ids[text_ids >= 0]] = True

    def finish(self) -> tuple[tuple[str, ...], Int32Array]:
        """The texts kept, and the trace's string id of each text id of the tape (−1 for one not kept)."""
        kept = np.flatnonzero(self._used)
        ids = np.full(len(self._used) + 1, NONE_ID, np.int32)
        ids[kept] = np.arange(len(kept))
        return tuple(self._tape.text(int(text_id)) for text_id in kept), ids


class StackReader:
    """Numbers the lists of frames of a snapshot.

    A million events share a few thousand stacks: lists are told apart by identity first (one row for each list of the
    pickle), then by content.
    """

    def __init__(self, tape: Tape, columns: list[Int64Array]) -> None:
        """``columns`` are tagged values of ``frames`` keys, 0 or None where there is none."""
        self._n_boxes = tape.n_boxes
        used = np.zeros(tape.n_boxes, np.bool_)
        for values in columns:
            tags = values & vm.TAG_MASK
            if not np.all((tags == vm.BOX) | (values == 0) | (values == vm.CONST)):
                raise InputFileError(tape.path, "a 'frames' in it is not a list")
            used[values[tags == vm.BOX] >> vm.TAG_BITS] = True
        lists = np.flatnonzero(used)
        if tape.lengths((lists << vm.TAG_BITS) | vm.BOX)[1] >= 0:
            raise InputFileError(tape.path, "a 'frames' in it is not a list")
        frames, bad = tape.mark_items(lists)
        if bad >= 0:
            raise InputFileError(tape.path, "a 'frames' in it holds something that is not a frame")
        rows = TapeRows(tape, (frames << vm.TAG_BITS) | vm.BOX, FRAME_KEYS, TEXT_ID, lambda _: "a frame of a stack")
        for key in ("name", "filename"):
            rows.require(key)
        name, filename = rows.text_ids("name"), rows.text_ids("filename")
        line = np.clip(rows.integers("line", missing=0, wrap=True), _INT32.min, _INT32.max)
        ids, first = dense_ids(name, filename, line)
        frame_of_box = np.full(tape.n_boxes, NONE_ID, np.int32)
        frame_of_box[frames] = ids
        self._stack_of_box = np.full(tape.n_boxes, NONE_ID, np.int32)
        self._stack_of_box[lists], self._offsets, self._frame_ids = tape.stacks(lists, frame_of_box)
        self._name, self._filename = name[first], filename[first]
        self._line = line[first].astype(np.int32)

    def ids(self, values: Int64Array) -> Int32Array:
        """Stack ids of tagged ``frames`` values, −1 where there is none or an empty one."""
        if not self._n_boxes:
            return np.full(len(values), NONE_ID, np.int32)
        is_list = values & vm.TAG_MASK == vm.BOX
        return np.where(is_list, self._stack_of_box[np.where(is_list, values >> vm.TAG_BITS, 0)], np.int32(NONE_ID))

    def use_texts(self, texts: TextTable) -> None:
        """Keep the frames' texts."""
        texts.use(self._name)
        texts.use(self._filename)

    def table(self, string_ids: Int32Array) -> StackTable:
        """The stacks, with texts renumbered to the trace's strings."""
        return StackTable(
            offsets=self._offsets,
            frame_ids=self._frame_ids,
            name_id=string_ids[self._name],
            filename_id=string_ids[self._filename],
            line=self._line,
        )
