"""What lies below a node: the same allocations that the trees count there."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memscope.analysis import Analysis
from memscope.attribution.call_tree import CallTree, call_tree, depths, module_tree, sum_below
from memscope.attribution.sites import own_frames
from memscope.attribution.subtree import rows_below_call, rows_below_module
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace
from tests.training_trace import training_trace


def built(stacks: list[list[int]]) -> Trace:
    """One allocation for each stack; frames with an even number are the user's own."""
    builder = TraceBuilder()
    frames = [
        builder.stacks.frame(f"f{i}", f"/lib/site-packages/x/{i}.py" if i % 2 else f"/home/me/{i}.py", i)
        for i in range(5)
    ]
    for i, stack in enumerate(stacks):
        stack_id = builder.stacks.stack([frames[f] for f in stack]) if stack else NONE_ID
        builder.add_event(Action.ALLOC, address=(1 << 40) + i * (1 << 20), size_bytes=i + 1, stack_id=stack_id)
    return builder.build(TraceMetadata(source="synthetic", has_segment_events=False, block_layout_recorded=False))


def path_of(tree: CallTree, node: int) -> list[int]:
    path: list[int] = []
    while node:
        path.insert(0, int(tree.frame_id[node]))
        node = int(tree.parent[node])
    return path


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=10), st.booleans())
def test_each_node_counts_the_rows_below_its_path(stacks: list[list[int]], own_only: bool) -> None:
    trace = built(stacks)
    table = Analysis(trace).device(0).allocations
    frames = own_frames(trace) if own_only else None
    tree = call_tree(trace, table, np.arange(len(table)), frames)
    for node in range(len(tree)):
        below = rows_below_call(trace, table.stack_id, path_of(tree, node), frames)
        assert int(table.requested_bytes[below].sum()) == int(tree.bytes[node])
        assert int(below.sum()) == int(tree.count[node])
        here = tree.node_of_row == node
        assert int(table.requested_bytes[here].sum()) == int(tree.own_bytes[node])


def test_modules_hold_what_lies_inside_them_and_not_their_namesakes() -> None:
    analysis = Analysis(training_trace(2, 12, with_oom=False))
    table, attribution, trace = analysis.device(0).allocations, analysis.attribution(0), analysis.trace
    rows = np.flatnonzero(table.active_at(analysis.peak(0).event))
    tree = module_tree(trace, table, attribution, rows)
    owner_id = attribution.owner_id[rows]
    assert "model.layers.1" in tree.path
    assert "model.layers.10" in tree.path
    for path, n_bytes, count in zip(tree.path, tree.bytes, tree.count, strict=True):
        below = rows_below_module(trace, owner_id, path)
        assert int(below.sum()) == int(count)
        assert int(table.requested_bytes[rows[below]].sum()) == int(n_bytes)


def test_sums_of_several_quantities_reach_the_root() -> None:
    parent = np.array([-1, 0, 0, 1, 3])
    own = np.array([[1, 0], [0, 2], [4, 0], [0, 8], [16, 1]])
    # 4 is below 3, below 1, below the root: 16+1 reaches all of them.
    assert sum_below(parent, own).tolist() == [[21, 11], [16, 11], [4, 0], [16, 9], [16, 1]]
    assert sum_below(parent, own[:, 0]).tolist() == [21, 16, 4, 16, 16]
    assert depths(parent).tolist() == [0, 1, 1, 2, 3]
