"""Addresses of the upper half of the address space: ordered unsigned, shown as the process saw them."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memscope.analysis import load
from memscope.errors import InputFileError
from memscope.replay.verify.verify import verify
from memscope.trace.container import read_container, write_container
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.snapshot.write import write_snapshot
from memscope.trace.validate import contradictions
from tests.oracles import ORACLE, needs_shared
from tests.trace.snapshot.snapshots import BASE, MIB, block, event, segment, small, trusted_load, write

HALF = 1 << 63


def of_segments(*addresses: int) -> dict[str, Any]:
    """A 20 MiB segment at each address, each filled by one allocation, made in the order given."""
    blocks = {a: [block(a, 20 * MIB, "active_allocated", 20 * MIB)] for a in addresses}
    events = []
    for i, address in enumerate(addresses):
        events += [event("segment_alloc", address, 20 * MIB, 2 * i), event("alloc", address, 20 * MIB, 2 * i + 1)]
    return small() | {
        "segments": [segment(a, blocks[a]) for a in addresses],
        "device_traces": [[*events, event("snapshot", 0, 0, 99)]],
    }


CASES = [
    pytest.param((0xFFFF800000000000,), id="upper"),
    pytest.param((HALF,), id="the-first-of-the-upper-half"),
    pytest.param((HALF + 2**62, HALF), id="upper-not-in-order"),
    pytest.param((2**64 - 20 * MIB,), id="the-last"),
    pytest.param((0xFFFF800000000000, BASE), id="both-halves"),
    pytest.param((HALF, HALF - 20 * MIB), id="meeting-in-the-middle"),
    pytest.param((HALF - 4 * MIB,), id="across-the-middle"),
]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("addresses", CASES)
def test_they_are_ordered_unsigned_and_every_verb_of_the_analysis_takes_them(
    tmp_path: Path, addresses: tuple[int, ...], protocol: int
) -> None:
    trace = read_snapshot(write(tmp_path, of_segments(*addresses), protocol))
    assert not contradictions(trace)
    assert (trace.address >= 0).all()
    assert (trace.segments.address >= 0).all()
    assert trace.real_addresses(trace.segments.address).tolist() == sorted(addresses)
    assert [trace.metadata.real_address(int(a)) for a in trace.segments.address] == sorted(addresses)
    made = trace.address[trace.action == 0]
    assert [trace.address_text(int(a)) for a in made] == [hex(a) for a in addresses]
    assert trace.address[-1] == 0  # a snapshot event has none


@pytest.mark.parametrize("addresses", CASES)
def test_they_come_back_from_both_kinds_of_file(tmp_path: Path, addresses: tuple[int, ...]) -> None:
    source = write(tmp_path, of_segments(*addresses))
    trace = read_snapshot(source)
    again = read_container(write_container(trace, tmp_path / "a.memscope"))
    assert again.metadata.address_bases == trace.metadata.address_bases
    assert np.array_equal(again.address, trace.address)
    written = pickle.loads(write_snapshot(again, tmp_path / "b.pickle").read_bytes())
    assert [s["address"] for s in written["segments"]] == sorted(addresses)
    assert [b["address"] for s in written["segments"] for b in s["blocks"]] == sorted(addresses)
    assert [e["addr"] for e in written["device_traces"][0]] == [*(a for a in addresses for _ in range(2)), 0]


def test_answers_are_those_of_the_same_run_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "high").mkdir()
    (tmp_path / "low").mkdir()
    high = load(write(tmp_path / "high", of_segments(HALF + 64 * MIB, HALF)))
    low = load(write(tmp_path / "low", of_segments(BASE + 64 * MIB, BASE)))
    for one, other in zip(high.device(0).usage.reserved_bytes, low.device(0).usage.reserved_bytes, strict=True):
        assert one == other
    assert high.device(0).peak().fragmentation == low.device(0).peak().fragmentation
    shown = high.device(0).peak().allocations()["address"].tolist()
    assert sorted(shown) == [HALF, HALF + 64 * MIB]


def test_a_contradiction_names_the_address_as_it_was(tmp_path: Path) -> None:
    snapshot = of_segments(HALF)
    snapshot["segments"][0]["allocated_size"] = 1
    (found,) = contradictions(read_snapshot(write(tmp_path, snapshot)))
    assert "segment 0x8000000000000000 records allocated_size 1" in str(found)


def test_addresses_further_apart_than_any_are_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, of_segments(MIB, HALF - 20 * MIB, HALF))
    with pytest.raises(InputFileError, match="0x100000 to 0x8000000000000000, are further apart"):
        read_snapshot(path)


def test_a_container_without_bases_is_still_one_that_the_version_before_reads(tmp_path: Path) -> None:
    for snapshot, version in ((small(), 3), (of_segments(HALF), 4)):
        trace = read_snapshot(write(tmp_path, snapshot))
        with zipfile.ZipFile(write_container(trace, tmp_path / f"{version}.memscope")) as archive:
            assert json.loads(archive.read("meta.json"))["schema_version"] == version


def test_memory_beyond_the_end_of_the_address_space_is_a_contradiction(tmp_path: Path) -> None:
    snapshot = of_segments(HALF)
    snapshot["device_traces"][0][1]["addr"] = 2**64 - 512
    trace = read_snapshot(write(tmp_path, snapshot))
    assert any("event 1 (alloc) has the address -512" in str(found) for found in contradictions(trace))


@needs_shared
@pytest.mark.parametrize("base", [HALF, 0xFFFF000000000000])
@pytest.mark.parametrize("name", ["pools_default", "streams_default", "llm_gpt2_tiny_train_exp"])
def test_a_recording_moved_up_is_replayed_as_exactly(tmp_path: Path, name: str, base: int) -> None:
    snapshot = trusted_load(next(ORACLE.glob(f"torch-2.1*/{name}.pickle.gz")))
    for place in (*snapshot["segments"], *(b for s in snapshot["segments"] for b in s["blocks"])):
        place["address"] += base
    for entry in (e for device in snapshot["device_traces"] for e in device):
        if "addr" in entry and entry["action"] != "snapshot":
            entry["addr"] += base
    assert verify(read_snapshot(write(tmp_path, snapshot))).exact
