"""Traces of several ranks, written by hand: every allocation is a segment of its own, to do sums in the head.

Each act takes 10 ms. Sizes are in MiB, even and 10 or more, so that block, request and segment are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memscope.analysis import Analysis
from memscope.ranks.compare import compare_ranks
from memscope.ranks.comparison import RankComparison
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, MarkKind
from memscope.trace.trace import Trace

MiB = 1 << 20
MS = 1_000_000
_BASE = 0x7F00_0000_0000


@dataclass(frozen=True)
class Alloc:
    name: str
    mib: int
    category: Category = Category.UNKNOWN
    owner: str = ""
    site: str = ""


@dataclass(frozen=True)
class Free:
    name: str


@dataclass(frozen=True)
class Step:
    label: str


@dataclass(frozen=True)
class Phase:
    label: str


@dataclass(frozen=True)
class Oom:
    mib: int


@dataclass(frozen=True)
class Wait:
    """Nothing happens on this device for 10 ms."""


Act = Alloc | Free | Step | Phase | Oom | Wait


def rank_trace(*devices: Sequence[Act], timed: bool = True, **metadata: Any) -> Trace:
    """A trace of what each device did; steps and phases are marked among the events of the device that names them."""
    builder = TraceBuilder()
    for device, acts in enumerate(devices):
        _run(builder, device, acts, timed)
    return builder.build(TraceMetadata(**{"source": "synthetic", "alloc_conf": "", "n_events_lost": 0, **metadata}))


def _run(builder: TraceBuilder, device: int, acts: Sequence[Act], timed: bool) -> None:
    address = _BASE + (device << 40)
    placed: dict[str, tuple[int, int]] = {}
    live: set[str] = set()
    for tick, act in enumerate(acts):
        when = {"device": device, "time_ns": 10 * MS * (tick + 1) if timed else -1}
        if isinstance(act, Alloc):
            size = act.mib * MiB
            stack_id = -1
            if act.site:
                stack_id = builder.stacks.stack([builder.stacks.frame(act.site, "/home/me/train.py", 7)])
            builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=size, stack_id=stack_id, **when)
            event = builder.add_event(Action.ALLOC, address=address, size_bytes=size, stack_id=stack_id, **when)
            if act.owner:
                builder.set_owner(event, act.category, act.owner)
            placed[act.name] = (address, size)
            live.add(act.name)
            address += size + 2 * MiB
        elif isinstance(act, Free):
            at, size = placed[act.name]
            builder.add_event(Action.FREE_REQUESTED, address=at, size_bytes=size, **when)
            builder.add_event(Action.FREE_COMPLETED, address=at, size_bytes=size, **when)
            live.remove(act.name)
        elif isinstance(act, Step):
            builder.add_mark(MarkKind.STEP, act.label, when["time_ns"])
        elif isinstance(act, Phase):
            builder.add_mark(MarkKind.PHASE_BEGIN, act.label, when["time_ns"])
        elif isinstance(act, Oom):
            builder.add_event(Action.OOM, address=-1, size_bytes=act.mib * MiB, **when)
    for name, (at, size) in placed.items():
        segment = builder.add_segment(address=at, size_bytes=size, is_large=True, device=device)
        state = BlockState.ACTIVE_ALLOCATED if name in live else BlockState.INACTIVE
        builder.add_block(segment, address=at, size_bytes=size, requested_bytes=size, state=state)


def training(*activations: int, weights: int = 20, extra: Sequence[Act] = ()) -> list[Act]:
    """Weights, then for each number a step ``0``, ``1``, … that holds so many MiB of activations."""
    acts: list[Act] = [Alloc("weights", weights, Category.WEIGHTS, "fc.weight", "build"), *extra]
    for step, mib in enumerate(activations):
        acts += [
            Alloc(f"saved {step}", mib, Category.ACTIVATIONS, "fc output", "forward"),
            Free(f"saved {step}"),
            Step(str(step)),
        ]
    return acts


DIED: list[Act] = [*training(10), Alloc("batch", 50, Category.INPUTS, "batch"), Oom(80)]
"""One step of 30 MiB, then 70 MiB in the next when it runs out of memory."""


def compare_traces(traces: Sequence[Trace]) -> RankComparison:
    """Traces as files of ranks 0, 1, …"""
    return compare_ranks([Analysis(trace, f"run-rank{i}.memscope") for i, trace in enumerate(traces)])


def compare_acts(*ranks: list[Act]) -> RankComparison:
    """The same of what each rank did."""
    return compare_traces([rank_trace(acts) for acts in ranks])
