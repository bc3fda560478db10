"""Writing torch's own format: read back it is the same trace, and torch's own tools understand it."""

import io
import pickle
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from memscope.errors import InputFileError, UsageError
from memscope.trace import schema
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, MarkKind, TieRule
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.snapshot.write import snapshot_dict, write_snapshot
from memscope.trace.trace import Trace
from tests.oracles import ORACLE, REAL, needs_shared
from tests.trace.snapshot.snapshots import small, write

FILES = sorted(REAL.glob("*.gz")) + [
    ORACLE / "torch-2.11.0" / f"{name}.pickle.gz"
    for name in ("annotations", "two_gpus", "oom_exp", "pools_default", "stacks_cpp", "streams_default", "state_only")
]
FILES += [ORACLE / folder / "pools_default.pickle.gz" for folder in ("torch-2.6.0", "torch-2.12.1", "torch-2.15.0")]


def assert_same_trace(a: Trace, b: Trace) -> None:
    """Equal in every column, stacks and texts compared by what they say."""
    for name in schema.EVENT_COLUMNS:
        if name not in ("stack_id", "label_id"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for table in ("segments", "blocks", "samples"):
        for name, column in getattr(a, table).columns().items():
            if name != "stack_id":
                np.testing.assert_array_equal(column, getattr(getattr(b, table), name), err_msg=f"{table}.{name}")
    for owner in ("segments", "blocks"):
        assert stack_texts(a, getattr(a, owner).stack_id) == stack_texts(b, getattr(b, owner).stack_id)
    assert stack_texts(a, a.stack_id) == stack_texts(b, b.stack_id)
    assert [a.string(i) for i in a.label_id.tolist()] == [b.string(i) for i in b.label_id.tolist()]
    np.testing.assert_array_equal(a.stream_handles, b.stream_handles)
    np.testing.assert_array_equal(a.pools, b.pools)
    assert mark_texts(a) == mark_texts(b)


def stack_texts(trace: Trace, stack_ids: np.ndarray) -> list:
    texts = {int(stack_id): trace.stack(int(stack_id)) for stack_id in np.unique(stack_ids)}
    return [texts[stack_id] for stack_id in stack_ids.tolist()]


def mark_texts(trace: Trace) -> list:
    marks = trace.marks
    labels = [trace.string(i) for i in marks.label_id.tolist()]
    return list(zip(marks.event.tolist(), marks.time_ns.tolist(), marks.kind.tolist(), labels, strict=True))


@needs_shared
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name.removesuffix('.pickle.gz')}")
def test_a_snapshot_written_and_read_again_is_the_same_trace(tmp_path: Path, path: Path) -> None:
    trace = read_snapshot(path)
    again = read_snapshot(write_snapshot(trace, tmp_path / "again.pickle"))
    assert_same_trace(trace, again)
    assert again.metadata.tie_rule == trace.metadata.tie_rule
    assert again.metadata.alloc_conf == trace.metadata.alloc_conf
    assert not again.metadata.extra


def test_what_is_written_is_what_torch_would_write(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["segments"][0]["blocks"][1]["requested_size"] = 0  # the stale leftover is not kept
    snapshot["device_traces"][0][3].pop("frames")
    trace = read_snapshot(write(tmp_path, snapshot))
    assert pickle.loads(pickle.dumps(snapshot_dict(trace))) == snapshot | {"external_annotations": []} or (
        snapshot_dict(trace) == {key: value for key, value in snapshot.items() if key != "external_annotations"}
    )


def test_stacks_are_shared_in_the_file(tmp_path: Path) -> None:
    trace = read_snapshot(write(tmp_path, small()))
    events = snapshot_dict(trace)["device_traces"][0]
    assert events[0]["frames"] is events[1]["frames"]
    assert events[0]["frames"][0] is events[2]["frames"][0]


def recorded() -> Trace:
    """A trace as memscope records one: labels, pools, steps without ranges, owners."""
    builder = TraceBuilder()
    stack = builder.stacks.stack([builder.stacks.frame("f", "a.py", 1)])
    builder.add_event(Action.SEGMENT_ALLOC, address=1 << 40, size_bytes=2 << 20, time_ns=1_000, pool=(0, 1))
    builder.add_event(
        Action.ALLOC, address=1 << 40, size_bytes=9, time_ns=2_000, pool=(0, 1), stack_id=stack, label="mine"
    )
    builder.add_mark(MarkKind.STEP, "warm-up", time_ns=2_000)
    builder.add_event(Action.FREE_REQUESTED, address=1 << 40, size_bytes=9, time_ns=3_000, pool=(0, 1))
    builder.add_event(Action.FREE_COMPLETED, address=1 << 40, size_bytes=9, time_ns=3_000, pool=(0, 1))
    builder.add_mark(MarkKind.STEP, "step 1")
    builder.add_sample(device_free_bytes=7 << 20)
    builder.add_event(Action.OOM, address=-1, size_bytes=1 << 30, time_ns=4_000, pool=(0, 1))
    segment = builder.add_segment(address=1 << 40, size_bytes=2 << 20, is_large=False, pool=(0, 1))
    builder.add_block(
        segment, address=1 << 40, size_bytes=2 << 20, requested_bytes=0, state=BlockState.INACTIVE, stack_id=stack
    )
    return builder.build(TraceMetadata(source="cuda", tie_rule=TieRule.SEGMENT_AGE, alloc_conf="", has_pool_ids=True))


def test_a_trace_of_our_own_recording_reads_back_but_for_what_the_format_lacks(tmp_path: Path) -> None:
    trace = recorded()
    again = read_snapshot(write_snapshot(trace, tmp_path / "own.pickle"))
    np.testing.assert_array_equal(again.address, trace.address)
    np.testing.assert_array_equal(again.time_ns, trace.time_ns)
    assert [tuple(pool) for pool in again.pools[again.pool_id].tolist()] == [(0, 1)] * 5
    assert again.string(int(again.label_id[1])) == "mine"
    assert again.samples.device_free_bytes.tolist() == [7 << 20]
    assert again.metadata.tie_rule == TieRule.SEGMENT_AGE
    # The step without a step's name gets one; the mark without a time is left out.
    assert [(kind, label) for _, _, kind, label in mark_texts(again)] == [
        (int(MarkKind.PHASE_END), "ProfilerStep#0"),
        (int(MarkKind.STEP), "ProfilerStep#0"),
    ]


def test_torchs_own_viewer_reads_the_file(tmp_path: Path) -> None:
    memory_viz = pytest.importorskip("torch.cuda._memory_viz")
    trace = read_snapshot(write(tmp_path, small()))
    snapshot = pickle.loads(write_snapshot(trace, tmp_path / "for-torch.pickle").read_bytes())
    assert "4.0MiB" in memory_viz.segsum(snapshot)
    with redirect_stdout(io.StringIO()):
        assert "alloc" in memory_viz.trace(snapshot)
    page = tmp_path / "page.html"
    page.write_text(memory_viz.trace_plot(snapshot))
    assert_same_trace(read_snapshot(page), trace)


def test_an_existing_file_is_kept_unless_overwriting_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "there.pickle"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        write_snapshot(recorded(), path)
    assert path.read_bytes() == b"mine"
    write_snapshot(recorded(), path, overwrite=True)
    assert read_snapshot(path).n_events == 5
    assert [p.name for p in tmp_path.iterdir()] == ["there.pickle"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be written"):
        write_snapshot(recorded(), tmp_path / "no" / "such" / "folder.pickle")


def test_an_empty_trace_is_written_and_read(tmp_path: Path) -> None:
    trace = TraceBuilder().build(TraceMetadata(source="synthetic"))
    again = read_snapshot(write_snapshot(trace, tmp_path / "empty.pickle"))
    assert again.n_events == 0
    assert len(again.segments) == 0
