"""Stacks as they are walked: whose frames are kept, and how they are named."""

from __future__ import annotations

import threading
from pathlib import Path

from memscope.capture import stacks
from memscope.capture.stacks import StackRecorder, is_tracer_frame, user_line
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace


def recorded(stack_ids: list[int], builder: TraceBuilder) -> Trace:
    for position, stack_id in enumerate(stack_ids):
        builder.add_event(Action.ALLOC, address=512 * position, size_bytes=1, stack_id=stack_id)
    return builder.build(TraceMetadata(source="dry-run"))


def test_frames_of_the_tracer_and_of_the_recorder_are_told_from_the_programs() -> None:
    assert is_tracer_frame("/lib/site-packages/torch/_subclasses/fake_tensor.py")
    assert is_tracer_frame("/lib/torch/utils/_python_dispatch.py")
    assert is_tracer_frame(str(Path(stacks.__file__).with_name("watcher.py")))
    assert is_tracer_frame("<frozen runpy>")
    assert not is_tracer_frame("/lib/site-packages/torch/nn/modules/linear.py")
    assert not is_tracer_frame("/home/me/torch_experiments/train.py")


def test_a_stack_is_the_programs_frames_from_the_inside_out_and_known_again() -> None:
    builder = TraceBuilder()
    recorder = StackRecorder(builder.stacks, strip_prefixes=(f"{Path(__file__).parent}/",))

    def inner() -> int:
        return recorder.current()

    ids = [inner() for _ in range(2)]
    trace = recorded([*ids, recorder.current()], builder)
    assert ids[0] == ids[1]
    names = [frame.name for frame in trace.stack(ids[0])]
    here = test_a_stack_is_the_programs_frames_from_the_inside_out_and_known_again.__name__
    assert names.index("inner") == 0
    assert here in names
    assert {frame.filename for frame in trace.stack(ids[0]) if frame.name in ("inner", here)} == {Path(__file__).name}


def test_a_stack_that_meets_frames_that_are_held_is_what_it_would_be_without() -> None:
    builder = TraceBuilder()
    holding, plain = StackRecorder(builder.stacks), StackRecorder(builder.stacks)

    def both() -> tuple[int, int]:
        return holding.current(), plain.current()

    def held(depth: int) -> list[tuple[int, int]]:
        holding.hold()
        try:
            found = [both()]
            found += held(depth - 1) if depth else []
            return [*found, both()]
        finally:
            holding.let_go()

    def outermost() -> list[tuple[int, int]]:
        return [*held(2), both(), *held(1)]

    pairs = [*outermost(), *held(0), both()]
    walked_alike = [holding_id for holding_id, _ in pairs]
    trace = recorded(walked_alike, builder)
    names = [[[(f.name, f.filename) for f in trace.stack(one)] for one in pair] for pair in pairs]
    assert all(with_held == without for with_held, without in names)
    assert len({tuple(stack) for stack, _ in names}) > 4


def test_frames_held_by_one_thread_are_not_anothers() -> None:
    builder = TraceBuilder()
    recorder = StackRecorder(builder.stacks)
    found: list[int] = []
    recorder.hold()
    thread = threading.Thread(target=lambda: found.append(recorder.current()))
    thread.start()
    thread.join()
    recorder.let_go()
    here = test_frames_held_by_one_thread_are_not_anothers.__name__
    assert here not in {frame.name for frame in recorded(found, builder).stack(found[0])}


def test_without_stacks_there_is_none() -> None:
    assert StackRecorder(TraceBuilder().stacks, is_enabled=False).current() == NONE_ID


def test_the_users_line_is_the_innermost_outside_of_installed_packages() -> None:
    file, _, line = user_line().rpartition(":")
    assert Path(file) == Path(__file__)
    assert line.isdigit()
