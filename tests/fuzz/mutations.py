"""Files that somebody changed: bytes, values and shapes, at random, each found again by its seed."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOSTILE_TEXT = "<img src=x onerror=alert(1)></script>\x1b[31m\u202e\u0085\0\udc80"
NUMBERS = (
    *(0, -1, 1, 2, 511, 512, (1 << 31) - 1, 1 << 31, (1 << 32) + 1, (1 << 53) + 1, (1 << 62), (1 << 63) - 1),
    *(1 << 63, (1 << 64) - 1, -(1 << 63), -(1 << 63) - 1, 10**30),
)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, False, 0.5, float("nan"), float("inf"), -float("inf"), 1e300),
    *("", "x", HOSTILE_TEXT, "a" * 100_000, b"bytes"),
    *([], {}, (), [[]], {"a": []}, [None], {"x": {"y": {"z": 1}}}),
)
"""What stands where something else should."""


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """A file with a few bytes flipped, cut out, doubled, or numbers put over others."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(found) or 1)
        kind = rng.randrange(5)
        if kind == 0:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del found[at : at + rng.choice((1, 8, 1000))]
        elif kind == 2:
            found[at:at] = found[at : at + rng.choice((1, 8, 1000))]
        elif kind == 3:
            width, number = rng.choice(((4, "<I"), (8, "<Q"))), rng.choice(NUMBERS)
            found[at : at + width[0]] = struct.pack(width[1], number % (1 << 8 * width[0]))
        else:
            del found[at:]
    return bytes(found)


def changed_value(value: Any, rng: random.Random) -> Any:
    """Something like the value: another of its kind mostly, now and then anything at all."""
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.7:
        return rng.choice((value + 1, value - 1, value * 2, -value, value + 512, rng.choice(NUMBERS)))
    if isinstance(value, str) and rng.random() < 0.7:
        return rng.choice((value + "x", HOSTILE_TEXT, value * 50, "", "free_completed", "alloc", "segment_map"))
    return rng.choice(VALUES)


def places(content: Any, limit: int = 20_000) -> list[tuple[Any, Any]]:
    """Containers inside of something, and the keys or positions in each."""
    found, left = [], [content]
    while left and len(found) < limit:
        one = left.pop()
        keys: Any = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        left += [one[key] for key in keys if isinstance(one[key], dict | list)]
    return found


def change_content(content: Any, rng: random.Random, wild: float = 0.3) -> None:
    """Change a few values of nested lists and dicts in their places; some go, some are there twice."""
    for _ in range(rng.choice((1, 1, 1, 3))):
        found = places(content)
        if not found:
            return
        holder, key = rng.choice(found)
        kind = rng.random()
        if kind < wild:
            holder[key] = rng.choice(VALUES)
        elif kind < 0.8:
            holder[key] = changed_value(holder[key], rng)
        elif kind < 0.9:
            del holder[key]
        elif isinstance(holder, list):
            other = rng.randrange(len(holder))
            holder.insert(other, copy.deepcopy(holder[key]))
        else:
            holder[rng.choice(("addr", "size", HOSTILE_TEXT, "action"))] = holder[key]


def change_words(content: Any, rng: random.Random) -> None:
    """Change what no allocator decides, names, lines and times: the snapshot stays one, and reaches the analyses."""
    found = [place for place in places(content) if place[1] in ("name", "filename", "line", "time_us")]
    for holder, key in rng.sample(found, min(len(found), rng.choice((1, 10, 100)))):
        if isinstance(holder[key], str):
            holder[key] = rng.choice(
                (HOSTILE_TEXT, holder[key] * 50, "", "a" * 100_000, "forward", "/x/cache_utils.py")
            )
        elif isinstance(holder[key], int):
            holder[key] = rng.choice((0, 1, holder[key] + 1, holder[key] // 2))


def changed_snapshot(content: dict[str, Any], rng: random.Random) -> bytes:
    """A pickle of a snapshot that was changed, its bytes too in one of six; in one of four only its words."""
    found = copy.deepcopy(content)
    if rng.random() < 1 / 4:
        change_words(found, rng)
        return pickle.dumps(found, protocol=rng.choice((2, 4, 5)))
    change_content(found, rng)
    data = pickle.dumps(found, protocol=rng.choice((2, 4, 5)))
    return changed_bytes(data, rng) if rng.random() < 1 / 6 else data


def changed_container(path: Path, rng: random.Random) -> bytes:
    """A ``.memscope`` file with its metadata, a column, a whole table, or its bytes changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = rng.random()
    if kind < 0.15:
        return changed_bytes(path.read_bytes(), rng)
    if kind < 0.25:
        name = rng.choice(sorted(members))
        members[name] = changed_bytes(members[name], rng)
    elif kind < 0.45:
        record = json.loads(members["meta.json"])
        change_content(record, rng)
        members["meta.json"] = json.dumps(record, default=repr).encode("utf-8", "surrogatepass")
    elif kind < 0.5:
        del members[rng.choice(sorted(members))]
    else:
        for _ in range(rng.choice((1, 1, 2))):
            name = rng.choice([name for name in sorted(members) if name.endswith(".parquet")])
            members[name] = _changed_table(members[name], rng)
    return zipped(members, zipfile.ZIP_DEFLATED if rng.random() < 0.03 else zipfile.ZIP_STORED)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _changed_table(data: bytes, rng: random.Random) -> bytes:
    table = pq.read_table(io.BytesIO(data), use_threads=False)
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    if not columns:
        return data
    name = rng.choice(sorted(columns))
    change = rng.choice(_TABLE_CHANGES)
    columns[name] = change(columns[name], rng)
    if rng.random() < 0.05:
        del columns[name]
    if len({len(column) for column in columns.values()}) > 1:
        shortest = min(len(column) for column in columns.values())
        columns = {key: column[:shortest] for key, column in columns.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression=rng.choice(("zstd", "none", "snappy")))
    return buffer.getvalue()


def _one_value(column: Any, rng: random.Random) -> Any:
    values = column.to_pylist()
    if not values:
        return column
    at = rng.randrange(len(values))
    values[at] = rng.choice(NUMBERS) if not isinstance(values[at], bytes) else HOSTILE_TEXT.encode("utf-8", "replace")
    return _array(values, column.type)


def _array(values: list[Any], kind: Any) -> Any:
    kinds = (kind, pa.int64(), pa.uint64(), pa.float64())
    arrays = (_array_of(values, other) for other in kinds)
    return next((array for array in arrays if array is not None), pa.array([str(value) for value in values]))


def _array_of(values: list[Any], kind: Any) -> Any:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return None


def _with_null(column: Any, rng: random.Random) -> Any:
    values = column.to_pylist()
    if values:
        values[rng.randrange(len(values))] = None
    return pa.array(values, column.type)


def _other_type(column: Any, rng: random.Random) -> Any:
    kind = rng.choice((pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint64(), pa.float64(), pa.bool_(), pa.utf8()))
    try:
        return column.cast(kind, safe=False)
    except pa.ArrowException:
        return column


def _shuffled(column: Any, rng: random.Random) -> Any:
    order = list(range(len(column)))
    rng.shuffle(order)
    return column.take(pa.array(order, pa.int64()))


def _cut(column: Any, rng: random.Random) -> Any:
    return column[: rng.randrange(len(column) + 1)]


def _near(column: Any, rng: random.Random) -> Any:
    """A value exchanged for one of its neighbours': valid by itself."""
    if len(column) < 2:
        return column
    values = column.to_pylist()
    at, other = rng.randrange(len(values)), rng.randrange(len(values))
    values[at] = values[other]
    return pa.array(values, column.type)


_TABLE_CHANGES: tuple[Callable[[Any, random.Random], Any], ...] = (
    *(_near, _near, _near, _one_value, _one_value),
    *(_with_null, _other_type, _shuffled, _cut),
)


def change_part(folder: Path, rng: random.Random) -> None:
    """Change one file of a recording's folder, or exchange it for something that is no file."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    file = rng.choice(files)
    data = file.read_bytes()
    if rng.random() < 0.15:
        file.write_bytes(changed_bytes(data, rng))
    elif file.suffix == ".json":
        content = json.loads(data)
        change_content(content, rng)
        file.write_text(json.dumps(content, default=repr), "utf-8", "surrogatepass")
    elif file.suffix == ".pickle":
        file.write_bytes(changed_snapshot(pickle.loads(data), rng))
    elif file.suffix == ".npy":
        buffer = io.BytesIO()
        rows = np.load(io.BytesIO(data))
        rows[rng.randrange(len(rows)), :] = rng.choice([n for n in NUMBERS if -(1 << 63) <= n < 1 << 63])
        np.save(buffer, rows.astype(rng.choice(("<i8", "<i8", "<i4", ">i8", "<f8"))))
        file.write_bytes(buffer.getvalue())
    else:
        file.write_bytes(changed_bytes(data, rng))
