"""What the pages of a Parquet column unpack to, by the header of each: the sums in the file's footer may be any number.

Of Thrift's compact protocol, in which a header is written, no more is read than where it ends and its three numbers.
Source: apache/parquet-format, ``Encodings.md`` and ``parquet.thrift``, format 2.11.
"""

from __future__ import annotations

_TYPE, _UNPACKED, _PACKED = 1, 2, 3
"""Fields of ``PageHeader``: what the page is, its bytes unpacked, its bytes in the file."""
_KINDS = (0, 2, 3)
"""Data pages of both versions, and dictionaries; no column of ours has another."""
_BOOLS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_MAX_DEPTH = 8


def unpacked_bytes(data: bytes, begin: int, n_bytes: int) -> int:
    """Bytes that a column chunk's pages unpack to, all in all.

    Parameters
    ----------
    data
        The Parquet file.
    begin, n_bytes
        Where the chunk's first page begins, and how long the chunk is.

    Raises
    ------
    ValueError
        If a page's header cannot be read, or says what no page can be.
    """
    if begin < 0 or n_bytes < 0 or begin + n_bytes > len(data):
        raise ValueError("a column of it lies outside of its table")
    at, end, total = begin, begin + n_bytes, 0
    while at < end:
        total, at = _after_page(data, at, total)
    return total


def _after_page(data: bytes, at: int, total: int) -> tuple[int, int]:
    numbers, at = _header(data, at)
    kind, unpacked, packed = (numbers.get(field, -1) for field in (_TYPE, _UNPACKED, _PACKED))
    if kind not in _KINDS or unpacked < 0 or packed < 0 or at + packed > len(data):
        raise ValueError("a page of it is damaged")
    return total + unpacked, at + packed


def _header(data: bytes, at: int) -> tuple[dict[int, int], int]:
    """The header's whole numbers by field, and where the page itself begins."""
    try:
        return _struct(data, at, _MAX_DEPTH)
    except IndexError as error:
        raise ValueError("a page of it is cut off") from error


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, int], int]:
    numbers: dict[int, int] = {}
    field = 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            field += step
        else:
            number, at = _varint(data, at)
            field = _signed(number)
        if kind in _INTEGERS:
            number, at = _varint(data, at)
            numbers[field] = _signed(number)
        elif kind not in _BOOLS:
            at = _skipped(data, at, kind, depth)
    return numbers, at + 1


def _skipped(data: bytes, at: int, kind: int, depth: int) -> int:
    """Where what follows a value begins."""
    if kind == _BYTE or kind in _BOOLS:  # a bool of a list takes a byte of its own
        return at + 1
    if kind in _INTEGERS:
        return _varint(data, at)[1]
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        n_bytes, at = _varint(data, at)
        return at + n_bytes
    if depth == 0 or kind not in (*_LISTS, _STRUCT):
        raise ValueError("a page of it is damaged")
    if kind == _STRUCT:
        return _struct(data, at, depth - 1)[1]
    n_values, inner = data[at] >> 4, data[at] & 15
    at += 1
    if n_values == 15:
        n_values, at = _varint(data, at)
    for _ in range(n_values):
        at = _skipped(data, at, inner, depth - 1)
        if at > len(data):
            raise ValueError("a page of it is cut off")
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a page of it is damaged")


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
