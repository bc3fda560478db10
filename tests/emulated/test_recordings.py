"""Recordings beside what PyTorch itself says of the same run: its snapshot, event by event, and its statistics."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from memscope.analysis import Analysis, load
from memscope.trace.schema import Action
from tests.conftest import Outcome
from tests.emulated.conftest import Recorded

EXPANDABLE = "expandable_segments:True"
_COUNTED = {Action.ALLOC: "allocation.all.allocated", Action.FREE_REQUESTED: "allocation.all.freed"}
_COUNTED_SEGMENTS = {Action.SEGMENT_ALLOC: "segment.all.allocated", Action.SEGMENT_FREE: "segment.all.freed"}


def _events(analysis: Analysis, device: int) -> list[tuple[Any, ...]]:
    """(action, address, size, stream) of each event of a device; an oom has no address."""
    trace = analysis.trace
    first, end = trace.event_range(device)
    rows = zip(
        trace.action[first:end].tolist(),
        trace.address[first:end].tolist(),
        trace.size_bytes[first:end].tolist(),
        [int(trace.stream_handles[stream]) for stream in trace.stream_id[first:end]],
        strict=True,
    )
    return [
        (Action(action).name.lower(), None if action == Action.OOM else address, size, stream)
        for action, address, size, stream in rows
        if action != Action.SNAPSHOT
    ]


def _said(snapshot: dict[str, Any], device: int) -> list[tuple[Any, ...]]:
    return [
        (event["action"], event.get("addr"), event["size"], event["stream"])
        for event in snapshot["device_traces"][device]
        if event["action"] != "snapshot"
    ]


def _without_handles(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Addresses and streams by the order in which they appear: on a GPU, two processes see different ones."""
    known: dict[Any, int] = {}
    return [
        (action, known.setdefault(("address", address), len(known)), size, known.setdefault(stream, len(known)))
        for action, address, size, stream in events
    ]


def _assert_holds_what_pytorch_said(recorded: Recorded, device: int, *, are_addresses_equal: bool) -> None:
    """The recording begins with what PyTorch's own history of the program says, and its counts are PyTorch's."""
    analysis, stats = load(recorded.path), recorded.stats[device]
    assert recorded.snapshot is not None
    events, said = _events(analysis, device), _said(recorded.snapshot, device)
    assert said, "PyTorch recorded nothing"
    assert _without_handles(events[: len(said)]) == _without_handles(said)
    assert not are_addresses_equal or events[: len(said)] == said
    actions = [event[0] for event in said]
    segments = {} if "segment_map" in actions else _COUNTED_SEGMENTS
    counted = {action.name: actions.count(action.name.lower()) for action in _COUNTED | segments}
    assert counted == {action.name: stats[name] for action, name in (_COUNTED | segments).items()}
    assert actions.count("oom") == stats["num_ooms"]
    usage = analysis.device(device).usage
    assert int(usage.allocated_bytes.max()) == stats["allocated_bytes.all.peak"]
    assert usage.reserved_bytes is not None
    assert int(usage.reserved_bytes.max()) == stats["reserved_bytes.all.peak"]


@pytest.mark.parametrize(
    ("program", "options", "conf"),
    [
        ("train", (), ""),
        ("train", ("--compute-capability", "8.0"), EXPANDABLE),
        ("train", (), EXPANDABLE),
        ("train_checkpointed", (), ""),
        ("generate", (), ""),
        ("streams", ("--event-latency", 60), ""),
        ("streams", ("--event-latency", 60), EXPANDABLE),
        ("caught_oom", (), ""),
        ("caught_oom", (), EXPANDABLE),
        ("pools", (), ""),
        ("two_devices", ("--devices", 2), ""),
    ],
)
def test_a_recording_holds_what_pytorch_says_and_verifies(
    program: str,
    options: tuple[object, ...],
    conf: str,
    device: str,
    record: Callable[..., Recorded],
    memscope: Callable[..., Outcome],
) -> None:
    if device == "gpu" and program == "two_devices":
        torch = pytest.importorskip("torch")
        if torch.cuda.device_count() < 2:
            pytest.skip("needs two GPUs")
    recorded = record(program, *options, conf=conf)
    for number in range(2 if program == "two_devices" else 1):
        _assert_holds_what_pytorch_said(recorded, number, are_addresses_equal=device == "emulated")
    verified = memscope("verify", recorded.path)
    assert verified.code == 0, verified.out + verified.err
    metadata = load(recorded.path).trace.metadata
    assert metadata.source == "cuda"
    assert metadata.is_emulated == (device == "emulated")
    assert (EXPANDABLE in (metadata.alloc_conf or "")) == (conf == EXPANDABLE)


@pytest.mark.emulated
@pytest.mark.parametrize("device", ["emulated"], indirect=True)
def test_generation_ends_by_the_length_it_was_given(record: Callable[..., Recorded]) -> None:
    assert record("generate", is_compared=False).seen["lengths"] == [21, 21, 21]


@pytest.mark.emulated
@pytest.mark.parametrize("device", ["emulated"], indirect=True)
def test_late_events_leave_blocks_pending(record: Callable[..., Recorded]) -> None:
    seen = record("streams", "--event-latency", 1000, is_compared=False).seen
    assert seen == {"n_pending": 40, "is_pinned": True}


@pytest.mark.emulated
@pytest.mark.parametrize("device", ["emulated"], indirect=True)
def test_a_device_that_is_full_refuses(record: Callable[..., Recorded]) -> None:
    recorded = record("caught_oom", "--gpu", "900MiB", "--overhead", "0MiB")
    stats, seen = recorded.stats[0], recorded.seen
    # 300 + 200 + 400 fit exactly in 900 MiB, neither 300 nor 100 more do. Then 250 takes the place of 300, and beside
    # it and 400 there is no room for 220, though the cached 200 are given back.
    assert seen["n_caught"] == 2
    assert stats["num_ooms"] == 3
    assert "GPU 0 has a total capacity of 900.00 MiB of which 0 bytes is free" in seen["message"]
    _assert_holds_what_pytorch_said(recorded, 0, are_addresses_equal=True)


@pytest.mark.emulated
@pytest.mark.parametrize("device", ["emulated"], indirect=True)
def test_everything_says_that_the_device_was_emulated(
    record: Callable[..., Recorded], memscope: Callable[..., Outcome]
) -> None:
    recorded = record("train", is_compared=False)
    assert recorded.seen["losses"] == [0.0] * 4
    assert recorded.ended.out == "trained\n"
    assert recorded.ended.err.count("reads values back") == 1
    summary = re.search(r"cuda on an emulated device: the (\d+) times that it read values back", recorded.ended.err)
    assert summary is not None
    assert int(summary[1]) >= 4  # each loss, and what the model looks at
    analysis = load(recorded.path)
    assert not analysis.is_exact
    assert "emulated device" in analysis.trust_sentence()
    assert analysis.trace.metadata.device_names == {0: "NVIDIA H100 80GB HBM3 (emulated)"}
    assert analysis.trace.metadata.notes[0].startswith("Recorded on an emulated device")
    assert "cuda on an emulated device" in memscope("report", recorded.path).out
