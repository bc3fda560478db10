"""Folded lines, speedscope's JSON and pprof's protobuf, each read back without the code that wrote it."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memscope.analysis import Analysis, load
from memscope.device.device import Moment
from memscope.export._profiles import NO_STACK, stacks_in_use, write_folded, write_pprof, write_speedscope
from tests.compare.runs import MiB, Take, line, run

SHIPPED = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"
NASTY = Take(2 * MiB, calls=(("f;g\n1", "/a b/c;d.py", 3), ("main", "m.py", -1)))


@pytest.fixture
def moments() -> list[Moment]:
    return [load(SHIPPED).peak()]


def requested(moment: Moment) -> int:
    return int(moment.device.allocations.requested_bytes[moment.in_use_rows].sum())


def test_the_stacks_sum_to_what_is_in_use(moments: list[Moment]) -> None:
    (moment,) = moments
    stacks = stacks_in_use(moment)
    assert sum(stack.bytes for stack in stacks) == requested(moment)
    assert sum(stack.n_allocations for stack in stacks) == len(moment.in_use_rows)
    assert [stack.bytes for stack in stacks] == sorted((stack.bytes for stack in stacks), reverse=True)
    assert stacks_in_use(run([Take(2 * MiB)]).peak())[0].frames[0].name == NO_STACK


def test_folded_lines_have_calls_and_bytes(moments: list[Moment]) -> None:
    out = io.BytesIO()
    write_folded([*moments, run([NASTY]).peak()], out)
    lines = out.getvalue().decode().splitlines()
    assert sum(int(text.rpartition(" ")[2]) for text in lines) == requested(moments[0]) + 2 * MiB
    assert lines[-1] == f"main (m.py:-1);f:g 1 (/a b/c:d.py:3) {2 * MiB}"
    assert all(text.rpartition(" ")[0] for text in lines)


def test_speedscope_reads_samples_and_weights_of_one_length(moments: list[Moment]) -> None:
    # https://www.speedscope.app/file-format-schema.json: what a file and a sampled profile must have.
    out = io.BytesIO()
    write_speedscope([*moments, run([NASTY]).peak()], "run", out)
    content = json.loads(out.getvalue())
    assert content["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = content["shared"]["frames"]
    assert all(set(frame) <= {"name", "file", "line", "col"} and isinstance(frame["name"], str) for frame in frames)
    for profile, total in zip(content["profiles"], (requested(moments[0]), 2 * MiB), strict=True):
        assert {"type", "name", "unit", "startValue", "endValue", "samples", "weights"} == set(profile)
        assert (profile["type"], profile["unit"]) == ("sampled", "bytes")
        assert profile["name"].endswith(", requested bytes")
        assert len(profile["samples"]) == len(profile["weights"])
        assert sum(profile["weights"]) == profile["endValue"] - profile["startValue"] == total
        assert all(0 <= i < len(frames) for sample in profile["samples"] for i in sample)
    (sample,) = content["profiles"][1]["samples"]
    assert [frames[i]["name"] for i in sample] == ["main", "f;g\n1"]


def fields(body: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message, by the wire format alone."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(body):
        key = varint()
        if key & 7 == 0:
            found.append((key >> 3, varint()))
        else:
            assert key & 7 == 2
            length = varint()
            found.append((key >> 3, body[at : at + length]))
            at += length
    return found


def packed(body: bytes) -> list[int]:
    return [value for _, value in fields(b"".join(b"\x08" + part for part in split(body)))]


def split(body: bytes) -> list[bytes]:
    parts, current = [], b""
    for byte in body:
        current += bytes([byte])
        if not byte & 0x80:
            parts.append(current)
            current = b""
    return parts


def test_pprof_reads_the_same_stacks(moments: list[Moment]) -> None:
    # profile.proto: 1 sample types, 2 samples, 4 locations, 5 functions, 6 strings, 13 comments, 14 the default type.
    out = io.BytesIO()
    write_pprof(moments, out)
    top = fields(gzip.decompress(out.getvalue()))
    strings = [value.decode() for number, value in top if number == 6]
    assert strings[0] == ""
    types = [[strings[v] for _, v in fields(value)] for number, value in top if number == 1]
    assert types == [["inuse_objects", "count"], ["inuse_space", "bytes"]]
    assert strings[next(value for number, value in top if number == 14)] == "inuse_space"
    comments = [strings[i] for number, value in top if number == 13 for i in packed(value)]
    assert comments == [f"device {one.device.index} after event {one.event}, requested bytes" for one in moments]
    functions = {f[1]: strings[f[2]] for f in (dict(fields(value)) for number, value in top if number == 5)}
    locations = {}
    for number, value in top:
        if number == 4:
            location = dict(fields(value))
            locations[location[1]] = functions[dict(fields(location[4]))[1]]
    read: Counter[tuple[str, ...]] = Counter()
    n = 0
    for number, value in top:
        if number == 2:
            sample = dict(fields(value))
            count, size = packed(sample[2])
            read[tuple(locations[i] for i in packed(sample[1]))] += size
            n += count
    expected: Counter[tuple[str, ...]] = Counter()
    for stack in stacks_in_use(moments[0]):
        expected[tuple(frame.name for frame in reversed(stack.frames))] += stack.bytes
    assert read == expected
    assert n == len(moments[0].in_use_rows)


def test_an_empty_moment_is_a_profile_of_nothing() -> None:
    moment = Analysis(run([Take(2 * MiB, calls=line(1))]).trace).at(-1)
    for write in (write_folded, write_pprof):
        out = io.BytesIO()
        write([moment], out)
    out = io.BytesIO()
    write_speedscope([moment], "run", out)
    assert json.loads(out.getvalue())["profiles"][0]["samples"] == []
