"""The tape: how a pickle's values are written as integers, and the codes that the machine answers with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

TAG_BITS = 3
TAG_MASK = 7
UNSET, INT, STR, BOX, CONST, WIDE, BYTES, MARK = range(8)
"""Tags. INT is 61 bits inline; WIDE is an index into pairs (value, class); CONST is 0 None, 1 False, 2 True."""

LIST, TUPLE, DICT = range(3)
WIDE_INT64, WIDE_UINT64, WIDE_BEYOND, WIDE_FLOAT, WIDE_FLOAT_TEXT = range(5)
"""Class of a wide value: an int64; 2⁶³ to 2⁶⁴−1, kept as its wrapped bits; beyond, value lost; a float's bits; the
text id of a float that protocol 0 wrote in decimals."""

(
    STOPPED,
    NEED_INPUT,
    NEED_ROOM,
    ASKS_GLOBAL,
    ASKS_CALL,
    UNKNOWN_OPCODE,
    UNSUPPORTED,
    STACK_EMPTY,
    NO_MARK,
    MEMO_MISSING,
    MEMO_BEYOND,
    TOO_LONG,
    WRONG_TARGET,
    BAD_PROTOCOL,
    BAD_NUMBER,
    TOO_MANY_OBJECTS,
) = range(16)
"""Status codes of :func:`run_tape`."""

(POS, BASE, N_STACK, TOP_MARK, N_MEMO, N_BOXES, N_ARENA, N_TEXTS, N_TEXT_BYTES, N_WIDE, ROOT, OPCODE, ROOM, SEED) = (
    range(14)
)
"""Rows of the state. ROOM says which array is full; OPCODE and POS say where a refusal happened."""
N_STATE = 14

ROOM_STACK, ROOM_MEMO, ROOM_BOXES, ROOM_ARENA, ROOM_TEXTS, ROOM_TEXT_BYTES, ROOM_SLOTS, ROOM_WIDE = range(8)

MAX_TEXT_BYTES = 16 << 20
"""Longest text or integer taken. The longest real ones, demangled C++ names, have some ten thousand bytes."""
MAX_LINE_BYTES = 1 << 20
"""Longest line of a text opcode (protocols 0 and 1)."""


class TapeArrays(NamedTuple):
    """Everything the machine writes; all int64 except ``box_kind`` and ``text_bytes``.

    ``arena`` holds chunks ``[next chunk or 0, n, item × n]``; its row 0 is not used. ``text_start`` and
    ``text_hash`` are equally long, one row more than there are texts at least; so are the three of boxes.
    ``slots`` is an open-addressing table of text ids + 1, its length a power of two.
    """

    state: Int64s
    stack: Int64s
    memo: Int64s
    box_first: Int64s
    box_last: Int64s
    box_kind: npt.NDArray[np.int8]
    arena: Int64s
    text_start: Int64s
    text_bytes: npt.NDArray[np.uint8]
    text_hash: Int64s
    slots: Int64s
    wide: Int64s
