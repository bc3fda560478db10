"""Columns in one binary answer: a header in JSON, then each column where the header says.

The first four bytes are the length of the header, little-endian; the header is JSON, padded with spaces so that what
follows begins at a multiple of 8. ``columns`` in it names each column's kind, the byte at which it begins, counted from
the header's end, and its length in values. Kinds are ``u1``, ``u2``, ``u4``; integers of 64 bits are two columns
``…_low`` and ``…_high`` of 32 each, because a browser's numbers are exact to 53.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from memscope.errors import InvariantError

KINDS = ("u1", "u2", "u4")
_ALIGNED_BYTES = 8


def packed(header: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> bytes:
    """Make the answer; columns are uint8, uint16 or uint32, of one dimension.

    Raises
    ------
    InvariantError
        If a column is of another kind.
    """
    places, parts, position = {}, [], 0
    for name, column in columns.items():
        kind = column.dtype.str.lstrip("<|")
        if kind not in KINDS:
            raise InvariantError(f"column {name} is {column.dtype}")
        places[name] = {"kind": kind, "begin": position, "length": len(column)}
        content = column.tobytes()
        content += b"\0" * (-len(content) % _ALIGNED_BYTES)
        parts.append(content)
        position += len(content)
    text = json.dumps({**header, "columns": places}, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-(len(text) + 4) % _ALIGNED_BYTES)
    return len(text).to_bytes(4, "little") + text + b"".join(parts)


def halves(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Integers of 64 bits, none of them read as negative, as two columns."""
    whole = np.ascontiguousarray(values).astype(np.uint64)
    return {
        f"{name}_low": (whole & np.uint64(0xFFFFFFFF)).astype(np.uint32),
        f"{name}_high": (whole >> np.uint64(32)).astype(np.uint32),
    }
