"""What a flame graph says: names of calls and modules, and the finding above it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from memscope.attribution.call_tree import ROOT
from memscope.device.device import Moment
from memscope.figures.flame_data import FlameKind, FlameTree, Key
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.trace import Trace
from memscope.units import format_bytes, format_fraction
from memscope.words.headlines import where
from memscope.words.labels import row_label

NO_STACK = "no stack recorded"
NO_OWNER = "no owner recorded"
LIBRARY_ONLY = "in library code only"


def frame_label(trace: Trace, frame_id: int) -> str:
    """``forward (model.py:12)``; the file without its folders."""
    if frame_id == NONE_ID:
        return NO_STACK
    frame = trace.frame(frame_id)
    file = frame.filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{frame.name} ({file}:{frame.line})" if file and frame.line > 0 else f"{frame.name} ({file})"


def key_label(trace: Trace, kind: FlameKind, key: Key) -> str:
    """A node's name among its siblings."""
    return frame_label(trace, int(key)) if kind is FlameKind.CALLS else str(key)


def path_label(trace: Trace, kind: FlameKind, path: Sequence[Key]) -> str:
    """What a path of keys is called: its last call, or the whole module path; empty for the root."""
    if not path:
        return ""
    return frame_label(trace, int(path[-1])) if kind is FlameKind.CALLS else ".".join(map(str, path))


def rest_label(kind: FlameKind) -> str:
    """What the root's own bytes are: those that no node below it has."""
    return LIBRARY_ONLY if kind is FlameKind.CALLS else NO_OWNER


def flame_finding(moment: Moment, tree: FlameTree, categories: Collection[Category] = ()) -> str:
    """``61 % of 14.2 GiB comes from train.py:42 (forward)``: the line of code, or the module, that holds most."""
    total = int(tree.bytes[ROOT])
    of = _of(categories)
    if not total:
        return f"Nothing{of} is allocated at {where(moment)}"
    whole = f"{format_bytes(total)}{of} at {where(moment)}"
    if tree.kind is FlameKind.MODULES:
        path, n_bytes = _deepest_majority(tree)
        if not path:
            return f"{whole}: the modules that own it were not recorded"
        return f"{format_fraction(n_bytes / total)} of {whole} belongs to {'.'.join(map(str, path))}"
    frame_id, n_bytes = _largest_site(moment, categories)
    if frame_id == NONE_ID:
        if not _has_stacks(tree):
            return f"{whole}: no call stacks were recorded"
        return f"{format_fraction(n_bytes / total)} of {whole} has no recorded stack"
    frame = moment.device.trace.frame(frame_id)
    file = frame.filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{format_fraction(n_bytes / total)} of {whole} comes from {file}:{frame.line} ({frame.name})"


def _of(categories: Collection[Category]) -> str:
    names = [row_label(category.label) for category in sorted(categories)]
    if not names:
        return ""
    return f" of {names[0]}" if len(names) == 1 else f" of {', '.join(names[:-1])} and {names[-1]}"


def _has_stacks(tree: FlameTree) -> bool:
    return any(key != NONE_ID for key in tree.keys)


def _largest_site(moment: Moment, categories: Collection[Category]) -> tuple[int, int]:
    """The user's line of code that holds most block bytes, and how many; −1 for what has no stack."""
    table = moment.device.allocations
    rows = moment.in_use_rows
    if categories:
        rows = rows[np.isin(moment.device.attribution.category[rows], list(categories))]
    frame_ids, position = np.unique(moment.device.site_frames_of(rows), return_inverse=True)
    sums = np.zeros(len(frame_ids), np.int64)
    np.add.at(sums, position.reshape(-1), table.block_bytes[rows])
    largest = int(np.argmax(sums))
    return int(frame_ids[largest]), int(sums[largest])


def _deepest_majority(tree: FlameTree) -> tuple[list[Key], int]:
    """The module furthest down that still holds more than half; else the largest at the top."""
    path: list[Key] = []
    node = ROOT
    while len(children := tree.children(node)):
        largest = int(children[0])
        if path and 2 * int(tree.bytes[largest]) <= int(tree.bytes[ROOT]):
            break
        node = largest
        path.append(tree.keys[node])
    return path, int(tree.bytes[node])


def has_names(tree: FlameTree) -> bool:
    """Whether there is any call or module to draw."""
    return len(tree.keys) > 1 and (tree.kind is FlameKind.MODULES or _has_stacks(tree))
