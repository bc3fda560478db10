"""Building a trace event by event."""

from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action, BlockState, MarkKind

METADATA = TraceMetadata(source="dry-run")


def test_events_keep_their_order_and_get_their_position() -> None:
    builder = TraceBuilder()
    positions = [builder.add_event(Action.ALLOC, address=i * 512, size_bytes=i) for i in range(3)]
    trace = builder.build(METADATA)
    assert positions == [0, 1, 2]
    assert trace.address.tolist() == [0, 512, 1024]
    assert trace.time_ns.tolist() == [NONE_ID] * 3
    assert trace.label_id.tolist() == [NONE_ID] * 3
    assert builder.n_events == 3


def test_ids_are_dense_and_shared_by_all_parts() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=0, size_bytes=1, stream=77, pool=(3, 4), label="x")
    builder.add_mark(MarkKind.STEP, "x")
    builder.add_segment(address=0, size_bytes=512, is_large=True, stream=77, pool=(3, 4))
    trace = builder.build(METADATA)
    assert trace.stream_handles.tolist() == [77]
    assert trace.pools.tolist() == [[0, 0], [3, 4]]
    assert (trace.pool_id[0], trace.segments.pool_id[0]) == (1, 1)
    assert trace.label_id[0] == trace.marks.label_id[0]


def test_stream_handles_keep_all_64_bits() -> None:
    builder = TraceBuilder()
    handles = [2**64 - 16, 2**63, 2**63 - 1, -5, 0]
    for handle in handles:
        builder.add_event(Action.ALLOC, address=0, size_bytes=1, stream=handle)
    trace = builder.build(METADATA)
    assert [handle % 2**64 for handle in trace.stream_handles.tolist()] == [handle % 2**64 for handle in handles]


def test_equal_stacks_are_one_and_an_empty_one_is_none() -> None:
    builder = TraceBuilder()
    frames = [builder.stacks.frame("f", "a.py", 1), builder.stacks.frame("g", "a.py", 2)]
    assert builder.stacks.frame("f", "a.py", 1) == frames[0]
    assert builder.stacks.stack(frames) == builder.stacks.stack(list(frames)) == 0
    assert builder.stacks.stack(frames[:1]) == 1
    assert builder.stacks.stack([]) == NONE_ID
    builder.add_event(Action.ALLOC, address=0, size_bytes=1, stack_id=0)
    trace = builder.build(METADATA)
    assert [str(frame) for frame in trace.stack(0)] == ["a.py:1 f", "a.py:2 g"]


def test_marks_and_samples_stand_before_the_next_event() -> None:
    builder = TraceBuilder()
    builder.add_mark(MarkKind.PHASE_BEGIN, "first")
    builder.add_event(Action.ALLOC, address=0, size_bytes=1)
    builder.add_mark(MarkKind.PHASE_END, "first")
    builder.add_sample(device=1, device_used_bytes=5)
    trace = builder.build(METADATA)
    assert trace.marks.event.tolist() == [0, 1]
    assert (trace.samples.event[0], trace.samples.device_free_bytes[0]) == (1, NONE_ID)


def test_a_users_tag_is_replaced_by_a_tag_only() -> None:
    builder = TraceBuilder()
    for i in range(2):
        builder.add_event(Action.ALLOC, address=512 * i, size_bytes=1)
    builder.set_owner(1, Category.WEIGHTS, "w")
    builder.set_owner(0, Category.UNKNOWN, "mine", tagged=True)
    builder.set_owner(0, Category.GRADIENTS, "w.grad")
    builder.set_owner(1, Category.GRADIENTS, "w.grad")
    owners = builder.build(METADATA).owners
    assert owners.alloc_event.tolist() == [0, 1]
    assert owners.category.tolist() == [Category.UNKNOWN, Category.GRADIENTS]
    builder.set_owner(0, Category.INPUTS, "other", tagged=True)
    assert builder.build(METADATA).owners.category.tolist() == [Category.INPUTS, Category.GRADIENTS]


def test_inactive_blocks_request_nothing() -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=0, size_bytes=1024, is_large=False)
    builder.add_block(segment, address=0, size_bytes=512, requested_bytes=9, state=BlockState.ACTIVE_PENDING_FREE)
    builder.add_block(segment, address=512, size_bytes=512, requested_bytes=9, state=BlockState.INACTIVE)
    assert builder.build(METADATA).blocks.requested_bytes.tolist() == [9, 0]


def test_building_goes_on_after_a_build() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=0, size_bytes=1)
    first = builder.build(METADATA)
    builder.add_event(Action.FREE_REQUESTED, address=0, size_bytes=1)
    assert (len(first), len(builder.build(METADATA))) == (1, 2)


def test_events_of_devices_in_turns_are_put_one_device_after_the_other() -> None:
    builder = TraceBuilder()
    for device in (0, 1, 0):
        builder.add_event(Action.ALLOC, address=0, size_bytes=1, device=device)
    assert builder.build(METADATA).device.tolist() == [0, 0, 1]
