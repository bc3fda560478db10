"""Contradictions: each kind in a hand-made snapshot, and none in what real PyTorch wrote."""

from pathlib import Path
from typing import Any

import pytest

from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.validate import MAX_LISTED, contradictions
from tests.oracles import BAD, needs_shared
from tests.trace.snapshot.snapshots import BASE, MIB, block, changed, event, segment, small, write


def texts(tmp_path: Path, snapshot: Any) -> list[str]:
    return [str(found) for found in contradictions(read_snapshot(write(tmp_path, snapshot)))]


def test_a_sound_snapshot_has_none(tmp_path: Path) -> None:
    assert texts(tmp_path, small()) == []


FOUND = [
    (("segments", 0, "blocks", 1, "address"), BASE + 4 * MIB + 512, "block 0x7f0000400200 leaves a gap of 512 bytes"),
    (
        ("segments", 0, "blocks", 1, "address"),
        BASE + 4 * MIB - 512,
        "block 0x7f00003ffe00 overlaps 512 bytes before it",
    ),
    (("segments", 0, "blocks", 0, "address"), BASE - 512, "block 0x7efffffffe00 overlaps 512 bytes before it"),
    (
        ("segments", 0, "blocks", 1, "size"),
        15 * MIB,
        f"of {20 * MIB} bytes is not tiled: its blocks end after {19 * MIB}",
    ),
    (("segments", 0, "total_size"), 21 * MIB, f"of {21 * MIB} bytes is not tiled: its blocks end after {20 * MIB}"),
    (("segments", 0, "total_size"), -5, "segment 0x7f0000000000 has a size of -5 bytes"),
    (("segments", 0, "total_size"), 1 << 60, "has a size of 1152921504606846976 bytes"),
    (("segments", 0, "blocks"), [], "segment 0x7f0000000000 has no blocks"),
    (("segments", 0, "blocks", 0, "requested_size"), 5 * MIB, "has 4194304 bytes for a request of 5242880"),
    (("segments", 0, "blocks", 0, "requested_size"), -1, "has 4194304 bytes for a request of -1"),
    (("segments", 0, "allocated_size"), 7, "records allocated_size 7, but its blocks sum to 4194304"),
    (("device_traces", 0, 1, "size"), -7, "device 0: event 1 (alloc) has a size of -7 bytes"),
    (("device_traces", 0, 1, "size"), 0, "device 0: event 1 (alloc) has a size of 0 bytes"),
    (("device_traces", 0, 1, "size"), 1 << 62, "event 1 (alloc) has a size of"),
    (("device_traces", 0, 1, "addr"), -512, "event 1 (alloc) has the address -512"),
]


@pytest.mark.parametrize(("path", "value", "text"), FOUND, ids=lambda value: str(value)[:30])
def test_each_contradiction_says_what_and_where(tmp_path: Path, path: tuple[Any, ...], value: Any, text: str) -> None:
    assert any(text in found for found in texts(tmp_path, changed(path, value)))


def test_overlapping_segments_of_one_device_are_found_and_of_two_are_not(tmp_path: Path) -> None:
    inside = BASE + 2 * MIB
    snapshot = small()
    snapshot["segments"].append(segment(inside, [block(inside, MIB)], device=1))
    assert texts(tmp_path, snapshot) == []
    snapshot["segments"][1]["device"] = 0
    (found,) = texts(tmp_path, snapshot)
    assert found == f"device 0: segment {inside:#x} starts inside segment {BASE:#x} of {20 * MIB} bytes"


def test_a_snapshot_event_may_report_no_bytes(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0].append(event("snapshot", 0, 0, 104))
    assert texts(tmp_path, snapshot) == []


def test_only_the_first_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0] += [event("alloc", BASE, -1, 200)] * (MAX_LISTED + 1234)
    found = texts(tmp_path, snapshot)
    assert len(found) == MAX_LISTED + 1
    assert found[-1] == "and 1,234 more of the same kind"


def test_many_differing_sums_are_counted(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["segments"] = [
        segment(BASE + i * MIB, [block(BASE + i * MIB, MIB)], allocated_size=5) for i in range(MAX_LISTED + 3)
    ]
    found = texts(tmp_path, snapshot)
    assert len(found) == MAX_LISTED + 1
    assert found[-1] == "and 3 more of the same kind"


@needs_shared
def test_the_bad_files_contradict_themselves_and_the_hostile_one_does_not() -> None:
    found = contradictions(read_snapshot(BAD / "blocks-do-not-tile.pickle"))
    assert [(c.device, c.address) for c in found] == [(0, 0x720000000000)]
    assert contradictions(read_snapshot(BAD / "contradictory-synthetic.pickle.gz"))
    assert not contradictions(read_snapshot(BAD / "hostile-names-but-valid.pickle"))


ADDRESSES = ((1 << 63) - 512, 1 << 62, 0)


def test_blocks_at_the_ends_of_the_address_space_are_told_without_an_overflow(tmp_path: Path) -> None:
    for address in ADDRESSES:
        for row in (0, 1):
            found = texts(tmp_path, changed(("segments", 0, "blocks", row, "address"), address))
            assert any("is not tiled" in text for text in found)
