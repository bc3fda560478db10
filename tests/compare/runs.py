"""Two small runs, written by hand, whose difference is known to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memscope.analysis import Analysis
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, MarkKind
from memscope.trace.trace import Trace

KiB, MiB = 1 << 10, 1 << 20
_BASE = 0x7F00_0000_0000


@dataclass(frozen=True)
class Take:
    """An allocation that stays, in a segment of its own: requested bytes, and what the block has beyond them."""

    size: int
    category: Category = Category.UNKNOWN
    owner: str = ""
    calls: tuple[tuple[str, str, int], ...] = ()
    """Function, file and line, innermost first."""
    extra: int = 0
    free_at_step: bool = False


Act = Take | str
"""What happens: an allocation, or the mark of a step."""


def run_trace(acts: Sequence[Act], **metadata: Any) -> Trace:
    """A trace of these acts; what is freed at a step is freed just before its mark."""
    builder = TraceBuilder()
    segments: list[tuple[int, int, int]] = []
    live: dict[int, int] = {}
    address = _BASE
    to_free: list[int] = []
    for act in acts:
        if isinstance(act, str):
            for at in to_free:
                builder.add_event(Action.FREE_REQUESTED, address=at, size_bytes=live[at])
                builder.add_event(Action.FREE_COMPLETED, address=at, size_bytes=live.pop(at))
            to_free = []
            builder.add_mark(MarkKind.STEP, act, -1)
            continue
        stack = builder.stacks.stack([builder.stacks.frame(*call) for call in act.calls])
        block = act.size + act.extra
        builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=block, stack_id=stack)
        event = builder.add_event(Action.ALLOC, address=address, size_bytes=act.size, stack_id=stack)
        if act.category is not Category.UNKNOWN:
            builder.set_owner(event, act.category, act.owner)
        segments.append((address, block, act.size))
        live[address] = act.size
        if act.free_at_step:
            to_free.append(address)
        address += 4 * MiB * -(-block // (4 * MiB)) + 4 * MiB
    for at, block, size in segments:
        segment = builder.add_segment(address=at, size_bytes=block, is_large=block > 2 * MiB)
        state = BlockState.ACTIVE_ALLOCATED if at in live else BlockState.INACTIVE
        builder.add_block(segment, address=at, size_bytes=block, requested_bytes=size, state=state)
    return builder.build(TraceMetadata(**{"source": "synthetic", "alloc_conf": "", "n_events_lost": 0, **metadata}))


def run(acts: Sequence[Act], name: str = "run.memscope", **metadata: Any) -> Analysis:
    """The same, as it is analysed."""
    return Analysis(run_trace(acts, **metadata), name)


def line(number: int, function: str = "forward", file: str = "/home/me/project/train.py") -> tuple[Any, ...]:
    """A stack of a function at a line, called by ``main``."""
    return ((function, file, number), ("main", file, 99))
