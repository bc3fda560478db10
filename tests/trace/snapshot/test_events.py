"""Events and annotations of a snapshot as columns: their order, their times, their labels."""

from pathlib import Path
from typing import Any

from memscope.trace.schema import NONE_ID, Action, MarkKind
from memscope.trace.snapshot.read import read_snapshot
from tests.trace.snapshot.snapshots import MIB, check_events, small, write


def test_an_oom_has_no_address_but_what_was_free(tmp_path: Path) -> None:
    oom = {"action": "oom", "device_free": 5 * MIB, "size": 30 * MIB, "stream": 0, "time_us": 200}
    snapshot = small()
    snapshot["device_traces"] = [[], [*snapshot["device_traces"][0], oom]]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.address[5] == NONE_ID
    assert trace.action[5] == Action.OOM
    samples = trace.samples
    assert (samples.event[0], samples.device[0], samples.device_free_bytes[0]) == (5, 1, 5 * MIB)
    assert samples.device_used_bytes[0] == NONE_ID


def test_events_without_a_time_are_marked_so(tmp_path: Path) -> None:
    snapshot = small()
    for entry in snapshot["device_traces"][0]:
        del entry["time_us"]
    del snapshot["external_annotations"], snapshot["allocator_settings"]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert (trace.time_ns == NONE_ID).all()
    assert trace.metadata.torch_version == "2.0–2.1"


def test_a_rotated_ring_is_put_in_order(tmp_path: Path) -> None:
    snapshot = small()
    events = snapshot["device_traces"][0]
    snapshot["device_traces"] = [events[3:] + events[:3]]
    trace = read_snapshot(write(tmp_path, snapshot))
    check_events(trace, small())
    assert "first 2 events are the newest" in trace.metadata.notes[0]


def test_jitter_of_the_clock_moves_nothing(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0][2]["time_us"] = 99
    trace = read_snapshot(write(tmp_path, snapshot))
    check_events(trace, snapshot)
    assert trace.metadata.notes == ()


def test_annotations_become_phases_and_steps_by_their_time(tmp_path: Path) -> None:
    def annotation(stage: str, name: str, time_us: int) -> dict[str, Any]:
        return {"stage": stage, "name": name, "device": 0, "time_us": time_us}

    snapshot = small()
    snapshot["external_annotations"] = [
        annotation("START", "ProfilerStep#0", 100),
        annotation("START", "forward", 101),
        annotation("END", "forward", 102),
        annotation("END", "ProfilerStep#0", 102),
        annotation("START", "ProfilerStep#1", 102),
        annotation("END", "Optimizer.step#SGD.step", 500),
        {"other": 1, "device": 0, "time_us": 3},
    ]
    trace = read_snapshot(write(tmp_path, snapshot))
    marks = trace.marks
    rows = zip(marks.event.tolist(), marks.kind.tolist(), marks.label_id.tolist(), strict=True)
    assert [(event, MarkKind(kind).name, trace.string(label)) for event, kind, label in rows] == [
        (0, "PHASE_BEGIN", "ProfilerStep#0"),
        (1, "PHASE_BEGIN", "forward"),
        (3, "PHASE_END", "forward"),  # behind the event of the same microsecond
        (3, "PHASE_END", "ProfilerStep#0"),
        (3, "STEP", "ProfilerStep#0"),
        (3, "PHASE_BEGIN", "ProfilerStep#1"),  # not before the end that it follows
        (5, "PHASE_END", "Optimizer.step#SGD.step"),
    ]
    assert marks.time_ns[1] == 101_000
    assert trace.metadata.notes == ("1 of 7 annotations could not be placed (no stage, name, time or timed events).",)


def test_labels_are_the_user_metadata(tmp_path: Path) -> None:
    snapshot = small()
    for entry, text in zip(snapshot["device_traces"][0], ["", "a", "b", "a", None], strict=True):
        entry["user_metadata"] = text
    trace = read_snapshot(write(tmp_path, snapshot))
    assert [trace.string(label) for label in trace.label_id.tolist()] == [None, "a", "b", "a", None]
