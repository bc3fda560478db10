"""Segments and blocks of a snapshot as columns, in order of device and address."""

from pathlib import Path

from memscope.trace.schema import NONE_ID
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.validate import contradictions
from tests.trace.snapshot.snapshots import (
    BASE,
    FRAMES,
    MIB,
    block,
    changed,
    check_state,
    frames_of,
    segment,
    small,
    write,
)


def test_the_history_of_old_blocks_gives_stack_and_request(tmp_path: Path) -> None:
    history = [{"addr": BASE, "real_size": 123, "frames": FRAMES}, {"addr": BASE, "real_size": 9, "frames": []}]
    blocks = [
        {"size": 512, "state": "active_allocated", "history": history},
        {"size": MIB - 512, "state": "inactive", "history": []},
    ]
    old = {"address": BASE, "total_size": MIB, "stream": 0, "segment_type": "small", "blocks": blocks}
    trace = read_snapshot(write(tmp_path, [old]))
    assert trace.blocks.address.tolist() == [BASE, BASE + 512]
    assert trace.blocks.requested_bytes.tolist() == [123, 0]
    assert trace.stack(int(trace.blocks.stack_id[0])) == frames_of(FRAMES)
    assert trace.blocks.stack_id[1] == NONE_ID
    assert not contradictions(trace)


def test_segments_out_of_order_are_sorted_with_their_blocks(tmp_path: Path) -> None:
    snapshot = small()
    far = BASE + 100 * MIB
    snapshot["segments"] = [
        segment(far, [block(far + MIB, MIB), block(far, MIB, "active_pending_free", 5)], device=1),
        segment(far, [block(far, 2 * MIB)]),
        *snapshot["segments"],
    ]
    trace = read_snapshot(write(tmp_path, snapshot))
    check_state(trace, snapshot)
    assert trace.segments.device.tolist() == [0, 0, 1]
    assert not contradictions(trace)


def test_sums_that_differ_from_their_blocks_are_kept_for_the_checks(tmp_path: Path) -> None:
    trace = read_snapshot(write(tmp_path, changed(("segments", 0, "active_size"), 5)))
    (entry,) = trace.metadata.extra["segment_total_mismatches"]
    assert entry == {"device": 0, "address": BASE, "field": "active_size", "recorded": 5, "summed": 4 * MIB}
