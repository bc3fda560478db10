"""The user's tags: by ``memscope.tag``, by PyTorch's own metadata and annotations, or by the ranges of a snapshot."""

from __future__ import annotations

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.names import shown
from memscope.trace.marks import phase_spans
from memscope.trace.metadata import SNAPSHOT_SOURCE
from memscope.trace.schema import NONE_ID, Action, MarkKind
from memscope.trace.tables import Int32Array, Int64Array
from memscope.trace.trace import Trace


def metadata_tags(lifetimes: DeviceLifetimes) -> Int32Array:
    """What PyTorch was told of each allocation: int32 (rows,), a text's id in the trace's strings, −1 for nothing.

    ``torch.cuda.memory._set_memory_metadata`` puts a text on every event that follows; ``_annotate_tensor`` puts one on
    a tensor, and the last of these counts.
    """
    table, trace = lifetimes.allocations, lifetimes.trace
    tags = np.full(len(table), NONE_ID, np.int32)
    born = table.alloc_event != NONE_ID
    tags[born] = trace.label_id[table.alloc_event[born]]
    annotations = _labelled_annotations(lifetimes)
    rows = _rows_at(lifetimes, annotations)
    found = rows != NONE_ID
    tags[rows[found]] = trace.label_id[annotations[found]]  # of equal rows numpy keeps the last
    return tags


def _labelled_annotations(lifetimes: DeviceLifetimes) -> Int64Array:
    trace, events = lifetimes.trace, slice(lifetimes.first_event, lifetimes.end_event)
    is_one = (trace.action[events] == Action.ANNOTATE) & (trace.label_id[events] != NONE_ID)
    return np.flatnonzero(is_one) + lifetimes.first_event


def _rows_at(lifetimes: DeviceLifetimes, events: Int64Array) -> Int64Array:
    """The allocation that is live at the address of each event, −1 for none. O(n log n) in rows and events."""
    table = lifetimes.allocations
    if not len(events) or not len(table):
        return np.full(len(events), NONE_ID, np.int64)
    places, place = np.unique(table.address, return_inverse=True)
    stride = lifetimes.end_event + 1
    keys = place * stride + np.maximum(table.alloc_event, 0)
    order = np.argsort(keys, kind="stable")
    address = lifetimes.trace.address[events]
    here = np.minimum(np.searchsorted(places, address), len(places) - 1)
    rows = order[np.maximum(np.searchsorted(keys[order], here * stride + events, side="right") - 1, 0)]
    let_go = table.let_go_event[rows]
    is_live = (table.address[rows] == address) & ((let_go == NONE_ID) | (let_go > events))
    return np.where(is_live & (table.alloc_event[rows] <= events), rows, NONE_ID)


def range_tags(lifetimes: DeviceLifetimes) -> Int32Array:
    """The innermost range that each allocation was made in: int32 (rows,), −1 for none.

    Ranges are those of ``record_function`` that a snapshot has as annotations; a step is none of them. The phases that
    memscope marks where it records are no user's.
    """
    table, trace = lifetimes.allocations, lifetimes.trace
    tags = np.full(len(table), NONE_ID, np.int32)
    if trace.metadata.source != SNAPSHOT_SOURCE or not len(trace.marks):
        return tags
    born = np.flatnonzero(table.alloc_event != NONE_ID)
    born = born[np.argsort(table.alloc_event[born], kind="stable")]
    events = table.alloc_event[born]
    labels = _labels_of_ranges(trace)
    # An inner range begins after the outer one: so it is laid over it.
    for span in phase_spans(trace, lifetimes.device):
        if span.label in labels:
            first, last = np.searchsorted(events, (span.begin, span.end))
            tags[born[first:last]] = labels[span.label]
    return tags


def _labels_of_ranges(trace: Trace) -> dict[str, int]:
    """The ids of the names of ranges that are no steps."""
    marks = trace.marks
    steps = {shown(trace.strings[i]) for i in np.unique(marks.label_id[marks.kind == MarkKind.STEP]).tolist()}
    names = {shown(trace.strings[i]): i for i in np.unique(marks.label_id[marks.kind != MarkKind.STEP]).tolist()}
    return {name: label_id for name, label_id in names.items() if name not in steps}


def used_ids(trace: Trace, tags: Int32Array) -> list[int]:
    """The ids of texts in a column of tags, ascending. O(rows and texts)."""
    is_used = np.zeros(len(trace.strings) + 1, np.bool_)
    is_used[tags] = True  # none is the last
    return np.flatnonzero(is_used[:-1]).tolist()
