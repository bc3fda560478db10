"""Columns in one binary answer are found where its header says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from memscope_dashboard.canvas.packed import halves, packed

from memscope.errors import InvariantError


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read an answer as the browser does: by its own header, and by nothing else."""
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    body = content[4 + length :]
    columns = {}
    for name, place in header["columns"].items():
        dtype = np.dtype(f"<{place['kind']}")
        assert (4 + length + place["begin"]) % dtype.itemsize == 0, "a browser's typed arrays begin at multiples"
        columns[name] = np.frombuffer(body, dtype, place["length"], place["begin"])
    return header, columns


def test_what_is_packed_is_found_again_at_aligned_places() -> None:
    columns = {
        "small": np.array([1, 2, 255], np.uint8),
        "middle": np.array([65535], np.uint16),
        "none": np.empty(0, np.uint32),
        "large": np.array([1, 1 << 31], np.uint32),
    }
    header, found = unpacked(packed({"name": "ä\u2028"}, columns))
    assert header["name"] == "ä\u2028"
    assert {name: column.tolist() for name, column in found.items()} == {
        name: column.tolist() for name, column in columns.items()
    }


def test_integers_of_64_bits_are_two_halves() -> None:
    values = np.array([0, 1, (1 << 32) - 1, 1 << 32, (1 << 47) + 5], np.int64)
    found = halves("size", values)
    again = found["size_low"].astype(object) + found["size_high"].astype(object) * (1 << 32)
    assert again.tolist() == values.tolist()
    beyond = np.array([0xFFFF_8000_0000_0000], np.uint64)
    assert halves("address", beyond)["address_high"].tolist() == [0xFFFF_8000]


def test_a_column_that_a_browser_would_misread_is_refused() -> None:
    with pytest.raises(InvariantError, match="column size is int64"):
        packed({}, {"size": np.array([1], np.int64)})
