"""Trees of calls and of modules: every byte once, parents before children."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis
from memscope.attribution.call_tree import (
    ROOT,
    CallTree,
    call_tree,
    depths,
    module_tree,
    rows_below_call,
    rows_below_module,
    sum_below,
)
from memscope.attribution.sites import own_frames
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace
from tests.attribution.scripted import Script, owned
from tests.properties import examples
from tests.training_trace import training_trace


def paths(trace: Trace, tree: CallTree) -> dict[tuple[int, ...], tuple[int, int, int, int]]:
    """Bytes and counts by the frames from the root."""
    found: list[tuple[int, ...]] = []
    for parent, frame_id in zip(tree.parent.tolist(), tree.frame_id.tolist(), strict=True):
        found.append(() if parent == NONE_ID else (*found[parent], frame_id))
    numbers = zip(tree.bytes, tree.own_bytes, tree.count, tree.own_count, strict=True)
    return {path: tuple(map(int, row)) for path, row in zip(found, numbers, strict=True)}  # type: ignore[misc]


def naive(stacks: list[tuple[int, ...]], sizes: list[int]) -> dict[tuple[int, ...], tuple[int, int, int, int]]:
    """The same, one allocation at a time."""
    total: dict[tuple[int, ...], list[int]] = {}
    for stack, size in zip(stacks, sizes, strict=True):
        whole = stack[::-1] or (NONE_ID,)
        for depth in range(len(whole) + 1):
            node = total.setdefault(whole[:depth], [0, 0, 0, 0])
            node[0] += size
            node[2] += 1
        total[whole][1] += size
        total[whole][3] += 1
    return {path: tuple(row) for path, row in total.items()}  # type: ignore[misc]


@given(st.lists(st.tuples(st.lists(st.integers(0, 4), max_size=5), st.integers(1, 5000)), max_size=12))
def test_the_call_tree_is_what_adding_one_by_one_gives(made: list[tuple[list[int], int]]) -> None:
    builder = TraceBuilder()
    frames = [builder.stacks.frame(f"f{i}", f"/a/{i}.py", i) for i in range(5)]
    address = 1 << 40
    for stack, size in made:
        stack_id = builder.stacks.stack([frames[i] for i in stack])
        builder.add_event(Action.ALLOC, address=address, size_bytes=size, stack_id=stack_id)
        address += 1 << 20
    trace = builder.build(TraceMetadata(source="synthetic", has_segment_events=False, block_layout_recorded=False))
    if not made:
        return
    table = Analysis(trace).device(0).allocations
    tree = call_tree(trace, table, np.arange(len(table)))
    assert paths(trace, tree) == naive([tuple(stack) for stack, _ in made], [size for _, size in made])
    assert (tree.parent[1:] < np.arange(1, len(tree))).all()


def test_frames_can_be_passed_over() -> None:
    script = Script()
    script.alloc("a", "forward", 1000)
    script.alloc("b", "block", 500)
    trace, lifetimes = script.trace(), script.lifetimes()
    kept = np.array([trace.strings[i].startswith("/home") for i in trace.stacks.filename_id])
    tree = call_tree(trace, lifetimes.allocations, np.arange(2), kept)
    names = ["" if i == NONE_ID else str(trace.frame(i)) for i in tree.frame_id.tolist()]
    assert names == ["", "/home/me/train.py:10 train", "/home/me/net.py:3 forward", "/home/me/net.py:9 forward"]
    assert tree.bytes.tolist() == [1500, 1500, 1000, 500]


def test_the_module_tree_sums_what_lies_below() -> None:
    tree = owned().end().module_tree()
    found = dict(zip(tree.path, zip(tree.bytes.tolist(), tree.own_bytes.tolist(), strict=True), strict=True))
    assert found[""] == (1966, 7)
    assert found["model.layers"] == (1900, 0)
    assert found["model.layers.0.self_attn.q_proj"] == (1600, 1600)
    assert found["copied to the device"] == (50, 50)
    assert tree.count[ROOT] == 6
    assert tree.name[tree.path.index("model.layers.1.mlp")] == "mlp"


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


@examples(40)
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
    table, attribution, trace = analysis.device(0).allocations, analysis.device(0).attribution, analysis.trace
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
