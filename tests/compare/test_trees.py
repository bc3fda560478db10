"""Two trees as one: sums that close, calls matched though lines have moved, and what is gone as wide as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis, load
from memscope.attribution.call_tree import ROOT
from memscope.compare.trees import REST, DifferenceTree, difference_tree
from memscope.device.device import Moment
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, run
from tests.naive_layout import random_layout
from tests.properties import examples

SHIPPED = Path(__file__).parents[2] / "traces"
MAIN, EARLIER = ("main", "app/train.py", 9), ("main", "app/train.py", 7)


def take(mib: int, *calls: tuple[str, str, int], owner: str = "") -> Take:
    return Take(mib * MiB, Category.ACTIVATIONS, owner, calls[::-1])


def ends(a: list, b: list) -> tuple[Moment, Moment]:
    return run(a, "a.memscope").end(), run(b, "b.memscope").end()


def named(moments: tuple[Moment, Moment], tree: DifferenceTree) -> dict[str, tuple[int, int, int]]:
    """Each call by its function and line, as B has it where both do: MiB of A and B, and how wide it is."""
    found = {}
    for node in range(1, len(tree)):
        frame_a, frame_b = int(tree.frame_a[node]), int(tree.frame_b[node])
        moment, frame_id = (moments[1], frame_b) if frame_b >= 0 else (moments[0], frame_a)
        frame = moment.device.trace.frame(frame_id)
        columns = (tree.a_bytes, tree.b_bytes, tree.width_bytes)
        found[f"{frame.name}:{frame.line}"] = tuple(int(column[node]) // MiB for column in columns)
    return found


def check(tree: DifferenceTree, a: Moment, b: Moment) -> None:
    """The laws of every tree: roots are the sums of their moments, and children never hold more than their parent."""
    assert (tree.a_bytes[ROOT], tree.b_bytes[ROOT]) == (a.allocated_bytes, b.allocated_bytes)
    assert (tree.n_a[ROOT], tree.n_b[ROOT]) == (len(a.in_use_rows), len(b.in_use_rows))
    assert (tree.parent[1:] < np.arange(1, len(tree))).all()
    for column in (tree.a_bytes, tree.b_bytes, tree.n_a, tree.n_b, tree.width_bytes):
        below = np.zeros(len(tree), np.int64)
        np.add.at(below, tree.parent[1:], column[1:])
        assert (below <= column).all()
        assert below[ROOT] == column[ROOT]
    assert sorted(tree.order.tolist()) == list(range(len(tree)))


def test_calls_are_matched_by_line_then_without_it_then_without_the_file() -> None:
    a = [
        take(4, EARLIER, ("forward", "app/model.py", 20)),
        take(2, EARLIER, ("forward", "app/model.py", 30)),
        take(1, EARLIER, ("step", "app/old_name.py", 5)),
        take(8, EARLIER, ("debug", "app/model.py", 99)),
    ]
    b = [
        take(4, MAIN, ("forward", "app/model.py", 20)),
        take(6, MAIN, ("forward", "app/model.py", 31)),
        take(1, MAIN, ("step", "app/new_name.py", 5)),
        take(16, MAIN, ("cache", "app/model.py", 40)),
    ]
    moments = ends(a, b)
    tree = difference_tree(*moments, is_by_module=False)
    assert named(moments, tree) == {
        "main:9": (15, 27, 35),
        "forward:20": (4, 4, 4),
        "forward:31": (2, 6, 6),
        "step:5": (1, 1, 1),
        "cache:40": (0, 16, 16),
        "debug:99": (8, 0, 8),
    }
    main = int(tree.children(ROOT)[0])
    last = int(tree.children(main)[-1])
    assert tree.is_gone(last)
    assert not tree.is_gone(main)
    assert [tree.is_new(node) for node in tree.children(main).tolist()] == [True, False, False, False, False]
    assert tree.path(last) == (main, last)
    assert tree.path(ROOT) == ()
    check(tree, *moments)


def test_what_no_call_of_the_users_has_is_a_node_of_its_own() -> None:
    library = ("empty", "/usr/lib/python3/site-packages/torch/x.py", 1)
    moments = ends([take(2, MAIN), take(4, library)], [take(2, MAIN)])
    tree = difference_tree(*moments, is_by_module=False)
    check(tree, *moments)
    (rest,) = (node for node in tree.children(ROOT).tolist() if tree.frame_a[node] == REST)
    assert tree.is_gone(rest)
    assert int(tree.a_bytes[rest]) == 4 * MiB


def test_modules_are_matched_by_their_names() -> None:
    a = [take(2, owner="layers.0.fc.weight"), take(4, owner="layers.1.fc.weight")]
    b = [take(2, owner="layers.0.fc.weight"), take(8, owner="layers.0.lora.weight")]
    moments = ends(a, b)
    tree = difference_tree(*moments, is_by_module=True)
    check(tree, *moments)
    sizes = {
        ".".join(tree.names[at] for at in tree.path(node)): (int(tree.a_bytes[node]), int(tree.b_bytes[node]))
        for node in range(1, len(tree))
    }
    assert sizes["layers"] == (6 * MiB, 10 * MiB)
    assert sizes["layers.0.lora"] == (0, 8 * MiB)
    assert sizes["layers.1"] == (4 * MiB, 0)


@pytest.mark.parametrize("is_by_module", [False, True])
@pytest.mark.parametrize("own_only", [False, True])
def test_a_moment_and_itself_differ_in_nothing(is_by_module: bool, own_only: bool) -> None:
    moment = load(SHIPPED / "tiny-llama-train.memscope").peak()
    tree = difference_tree(moment, moment, is_by_module=is_by_module, own_only=own_only)
    assert (tree.a_bytes == tree.b_bytes).all()
    assert (tree.width_bytes == tree.b_bytes).all()
    assert (tree.frame_a == tree.frame_b).all()
    check(tree, moment, moment)


@pytest.mark.parametrize("is_by_module", [False, True])
def test_unlike_recordings_close_too(is_by_module: bool) -> None:
    names = ("tiny-gpt2-generate", "tiny-llama-train", "tiny-out-of-memory")
    moments = [load(SHIPPED / f"{name}.memscope").peak() for name in names]
    for a in moments:
        for b in moments:
            check(difference_tree(a, b, is_by_module=is_by_module), a, b)


@examples(20)
@given(seeds=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), share=st.floats(0, 1))
def test_any_two_moments_close(seeds: tuple[int, int], share: float) -> None:
    devices = [Analysis(random_layout(seed, 40).trace()).device() for seed in seeds]
    events = [device.usage.event_at(int(share * device.n_events)) for device in devices]
    a, b = (device.at(event) for device, event in zip(devices, events, strict=True))
    for is_by_module in (False, True):
        check(difference_tree(a, b, is_by_module=is_by_module), a, b)
