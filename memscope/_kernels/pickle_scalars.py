"""Numbers and texts in the bytes of a pickle, as the values of a tape; texts are interned by content."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from memscope._kernels.tape_format import (
    INT,
    MAX_LINE_BYTES,
    SEED,
    TAG_BITS,
    UNSET,
    WIDE,
    WIDE_BEYOND,
    WIDE_INT64,
    WIDE_UINT64,
    Int64s,
    TapeArrays,
)

_HASH_PRIME = 1099511628211
_HASH_MASK = (1 << 62) - 1


@njit(cache=True)
def byte_at(buf: npt.NDArray[np.uint8], p: int) -> int:
    """One byte as a signed integer; ``+ 0`` keeps numba from typing it unsigned."""
    return int(buf[p]) + 0


@njit(cache=True)
def signed(buf: npt.NDArray[np.uint8], p: int, n: int) -> int:
    """Little-endian two's complement of 1 to 8 bytes."""
    v = -1 if byte_at(buf, p + n - 1) >= 128 else 0
    for i in range(n - 1, -1, -1):
        v = (v << 8) | byte_at(buf, p + i)
    return v


@njit(cache=True)
def unsigned(buf: npt.NDArray[np.uint8], p: int, n: int) -> int:
    """Little-endian number of 1 to 8 bytes; −1 if it does not fit 62 bits."""
    v = 0
    for i in range(n - 1, -1, -1):
        if v >= 1 << 54:
            return -1
        v = (v << 8) | byte_at(buf, p + i)
    return v


@njit(cache=True)
def intern_text(buf: npt.NDArray[np.uint8], p: int, n: int, tape: TapeArrays, n_texts: int) -> int:
    """Id of the text ``buf[p:p + n]``, new (= ``n_texts``) if unseen. The caller has made room. O(n)."""
    h = int(tape.state[SEED])
    for i in range(p, p + n):
        h = ((h ^ byte_at(buf, i)) * _HASH_PRIME) & _HASH_MASK
    h ^= h >> 29
    mask = len(tape.slots) - 1
    slot = h & mask
    while tape.slots[slot] != 0:
        text = tape.slots[slot] - 1
        start = tape.text_start[text]
        if tape.text_hash[text] == h and tape.text_start[text + 1] - start == n:
            same = True
            for i in range(n):
                if tape.text_bytes[start + i] != buf[p + i]:
                    same = False
                    break
            if same:
                return int(text)
        slot = (slot + 1) & mask
    start = tape.text_start[n_texts]
    for i in range(n):
        tape.text_bytes[start + i] = buf[p + i]
    tape.text_start[n_texts + 1] = start + n
    tape.text_hash[n_texts] = h
    tape.slots[slot] = n_texts + 1
    return n_texts


@njit(cache=True)
def rehash(slots: Int64s, text_hash: Int64s, n_texts: int) -> None:
    """Fill an empty, larger slot table. O(n_texts)."""
    mask = len(slots) - 1
    for text in range(n_texts):
        slot = text_hash[text] & mask
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = text + 1


@njit(cache=True)
def line_end(buf: npt.NDArray[np.uint8], p: int, n_buf: int) -> int:
    """Position of the next newline, −1 if the window has none, −2 if the line is longer than any real one."""
    for i in range(p, min(n_buf, p + MAX_LINE_BYTES)):
        if buf[i] == 10:
            return i
    return -2 if n_buf - p >= MAX_LINE_BYTES else -1


@njit(cache=True)
def decimal(buf: npt.NDArray[np.uint8], p: int, end: int, wide: Int64s, n_wide: int) -> int:
    """Value of a line of decimal digits as a tagged value, UNSET if it is none.

    More than 18 digits make a WIDE value of class beyond, in row ``n_wide`` of ``wide``.
    """
    negative = p < end and buf[p] == 45
    if negative:
        p += 1
    if p == end:
        return UNSET
    number = 0
    is_beyond = False
    for i in range(p, end):
        digit = byte_at(buf, i) - 48
        if digit < 0 or digit > 9:
            return UNSET
        if number >= 100000000000000000:
            is_beyond = True
        else:
            number = number * 10 + digit
    if is_beyond:
        wide[2 * n_wide] = 0
        wide[2 * n_wide + 1] = WIDE_BEYOND
        return (n_wide << TAG_BITS) | WIDE
    return ((-number if negative else number) << TAG_BITS) | INT


@njit(cache=True)
def long_integer(buf: npt.NDArray[np.uint8], p: int, n: int, wide: Int64s, n_wide: int) -> int:
    """A little-endian integer of n bytes as a tagged value; row ``n_wide`` of ``wide`` is used if it is wide."""
    if n == 0:
        return INT
    low = int(signed(buf, p, min(n, 8)))
    kind = WIDE_INT64
    if n > 8:
        fill = 255 if low < 0 else 0
        is_sign, is_zero = True, True
        for i in range(p + 8, p + n):
            is_sign &= buf[i] == fill
            is_zero &= buf[i] == 0
        kind = WIDE_INT64 if is_sign else WIDE_UINT64 if is_zero else WIDE_BEYOND
    if kind == WIDE_INT64 and -(1 << 60) <= low < (1 << 60):
        return int((low << TAG_BITS) | INT)
    wide[2 * n_wide], wide[2 * n_wide + 1] = low, kind
    return (n_wide << TAG_BITS) | WIDE
