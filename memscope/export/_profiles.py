"""Stacks of what is in use at a moment, in profilers' formats: folded lines, speedscope's JSON, pprof's protobuf."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar

import numpy as np

from memscope.device.device import Moment
from memscope.trace.schema import NONE_ID
from memscope.trace.trace import Frame

_Item = TypeVar("_Item")

NO_STACK = "no stack recorded"
_SPEEDSCOPE_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


@dataclass(frozen=True, slots=True)
class StackBytes:
    """What was allocated at one stack: its frames, outermost first, and sums of requested bytes and allocations."""

    frames: tuple[Frame, ...]
    bytes: int
    n_allocations: int


def stacks_in_use(moment: Moment) -> list[StackBytes]:
    """Each stack of what is in use after an event, the largest first; they sum to its requested bytes in use."""
    table, rows = moment.device.allocations, moment.in_use_rows
    stack_ids, position = np.unique(table.stack_id[rows], return_inverse=True)
    sizes = np.zeros(len(stack_ids), np.int64)
    np.add.at(sizes, position.reshape(-1), table.requested_bytes[rows])
    counts = np.bincount(position.reshape(-1), minlength=len(stack_ids))
    trace = moment.device.trace
    found = [
        StackBytes(trace.stack(stack_id)[::-1] if stack_id != NONE_ID else (Frame(NO_STACK, "", 0),), int(size), int(n))
        for stack_id, size, n in zip(stack_ids.tolist(), sizes, counts, strict=True)
    ]
    return sorted(found, key=lambda one: -one.bytes)


def _meaning(moment: Moment) -> str:
    """What a profile's numbers are, and of when."""
    return f"device {moment.device.index} after event {moment.event}, requested bytes"


def write_folded(moments: Iterable[Moment], file: BinaryIO) -> None:
    """Write a line for each stack: its calls, outermost first, with semicolons between them, and its bytes."""
    for moment in moments:
        for stack in stacks_in_use(moment):
            calls = ";".join(_folded(frame) for frame in stack.frames)
            file.write(f"{calls} {stack.bytes}\n".encode("utf-8", "backslashreplace"))


def _folded(frame: Frame) -> str:
    place = f" ({frame.filename}:{frame.line})" if frame.filename else ""
    text = f"{frame.name}{place}".replace(";", ":")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def write_speedscope(moments: Sequence[Moment], name: str, file: BinaryIO) -> None:
    """Write a sampled profile for each device, of bytes."""
    ids: dict[Frame, int] = {}
    profiles = []
    for moment in moments:
        stacks = stacks_in_use(moment)
        profiles.append(
            {
                "type": "sampled",
                "name": _meaning(moment),
                "unit": "bytes",
                "startValue": 0,
                "endValue": sum(stack.bytes for stack in stacks),
                "samples": [[ids.setdefault(frame, len(ids)) for frame in stack.frames] for stack in stacks],
                "weights": [stack.bytes for stack in stacks],
            }
        )
    frames = [
        {"name": frame.name, **({"file": frame.filename, "line": frame.line} if frame.filename else {})}
        for frame in ids
    ]
    content = {
        "$schema": _SPEEDSCOPE_SCHEMA,
        "exporter": "memscope",
        "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": profiles,
    }
    file.write(json.dumps(content, ensure_ascii=True).encode())


def write_pprof(moments: Iterable[Moment], file: BinaryIO) -> None:
    """Write ``perftools.profiles.Profile``, gzipped: allocations in use and their requested bytes, by stack.

    Its comments say of which device and moment they are.
    """
    strings = _Table[str]()
    strings.id_of("")
    functions, locations = _Table[tuple[str, str]](), _Table[Frame]()
    samples = bytearray()
    comments = []
    for moment in moments:
        comments.append(strings.id_of(_meaning(moment)))
        for stack in stacks_in_use(moment):
            ids = [locations.id_of(frame) + 1 for frame in reversed(stack.frames)]
            body = _packed(1, ids) + _packed(2, [stack.n_allocations, stack.bytes])
            samples += _field(2, body)
    out = bytearray()
    for kind, unit in (("inuse_objects", "count"), ("inuse_space", "bytes")):
        out += _field(1, _number(1, strings.id_of(kind)) + _number(2, strings.id_of(unit)))
    out += samples
    for i, frame in enumerate(locations.items):
        line = _number(1, functions.id_of((frame.name, frame.filename)) + 1) + _number(2, max(frame.line, 0))
        out += _field(4, _number(1, i + 1) + _field(4, line))
    for i, (name, filename) in enumerate(functions.items):
        named, place = strings.id_of(name), strings.id_of(filename)
        out += _field(5, _number(1, i + 1) + _number(2, named) + _number(3, named) + _number(4, place))
    default = strings.id_of("inuse_space")
    for text in strings.items:
        out += _field(6, text.encode("utf-8", "replace"))
    out += _packed(13, comments)
    out += _number(14, default)
    file.write(gzip.compress(bytes(out), mtime=0))


class _Table(Generic[_Item]):
    """Things by dense id."""

    def __init__(self) -> None:
        self._ids: dict[_Item, int] = {}

    def id_of(self, item: _Item) -> int:
        return self._ids.setdefault(item, len(self._ids))

    @property
    def items(self) -> list[_Item]:
        return list(self._ids)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _field(field, b"".join(map(_varint, values)))
