"""A recording as a stranger's would be: no owners, no marks, and, as on CUDA, no stacks within the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from memscope.attribution.attribution import Attribution, attribute
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, MarkTable, OwnerTable, StackTable
from memscope.trace.trace import Trace

ENGINE = "_engine_run_backward"
N_CATEGORIES = len(Category)


def without_identity(trace: Trace) -> Trace:
    """The trace without owners, tags, steps and phases: stacks alone."""
    return replace(trace, owners=OwnerTable.empty(), marks=MarkTable.empty())


def without_backward_stacks(trace: Trace) -> Trace:
    """The trace with the stacks that CUDA's autograd threads have: only what Python the engine itself called."""
    stacks = trace.stacks
    engine = np.array([trace.strings[i] == ENGINE for i in stacks.name_id], np.bool_)
    new_ids = np.full(len(stacks) + 1, NONE_ID, np.int32)
    offsets, frame_ids = [0], []
    for stack_id in range(len(stacks)):
        frames = stacks.frames_of(stack_id)
        at = np.flatnonzero(engine[frames])
        kept = frames[: at[0]] if len(at) else frames
        if len(kept):
            new_ids[stack_id] = len(offsets) - 1
            frame_ids.extend(kept.tolist())
            offsets.append(len(frame_ids))
    shorter = StackTable(
        offsets=np.array(offsets, np.int64),
        frame_ids=np.array(frame_ids, np.int32),
        name_id=stacks.name_id,
        filename_id=stacks.filename_id,
        line=stacks.line,
    )
    return replace(trace, stacks=shorter, stack_id=new_ids[trace.stack_id])


@dataclass(frozen=True)
class Verdict:
    """What stacks alone said of the peak, beside what identity had said.

    Attributes
    ----------
    confusion
        int64 (categories, categories): bytes by true category (rows) and by found category (columns).
    untold_bytes
        Bytes at the peak whose category identity does not know.
    """

    confusion: Int64Array
    untold_bytes: int

    @property
    def right_frac(self) -> float:
        """Share of the bytes with a known truth that were found right."""
        return float(np.trace(self.confusion)) / float(self.confusion.sum())


def classify_peak(trace: Trace, *, as_on_cuda: bool) -> Verdict:
    """Classify a trace's peak from its stacks, and compare with its own identities."""
    blind = without_identity(without_backward_stacks(trace) if as_on_cuda else trace)
    truth_lifetimes, lifetimes = DeviceLifetimes(trace, 0), DeviceLifetimes(blind, 0)
    truth: Attribution = attribute(truth_lifetimes, ())
    found = attribute(lifetimes)
    table = lifetimes.allocations
    live = table.active_at(lifetimes.usage.peak_event)
    told = live & (truth.source == CategorySource.IDENTITY)
    confusion = np.zeros((N_CATEGORIES, N_CATEGORIES), np.int64)
    np.add.at(confusion, (truth.category[told], found.category[told]), table.requested_bytes[told])
    return Verdict(confusion, int(table.requested_bytes[live & ~told].sum()))
