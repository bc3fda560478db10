"""Who held the memory when a request failed."""

from __future__ import annotations

from memscope.analysis import Analysis
from memscope.oom._owners import block_of, largest_owners
from memscope.trace.categories import Category
from memscope.units import MiB
from tests.rank_traces import Alloc, Free, Oom, rank_trace


def test_the_layers_of_a_model_are_one_owner_and_a_line_of_code_another() -> None:
    layers = [Alloc(f"w{i}", 10 + 2 * i, Category.WEIGHTS, f"model.layers.{i}.weight") for i in range(3)]
    gone = Alloc("gone", 90, Category.WEIGHTS, "model.head.weight")
    device = Analysis(rank_trace([*layers, Alloc("a", 50, site="keep"), gone, Free("gone"), Oom(80)])).device(0)
    found = largest_owners(device, int(device.oom_events[0]))
    assert [(o.category, o.owner, o.site, o.block_bytes // MiB, o.n_allocations, o.n_owners) for o in found] == [
        ("unknown", None, "/home/me/train.py:7 keep", 50, 1, 0),
        # 10 + 12 + 14 MiB; the largest of them lends its name.
        ("weights", "model.layers.2.weight", None, 36, 3, 3),
    ]
    assert [o.block_bytes // MiB for o in largest_owners(device, int(device.oom_events[0]), limit=1)] == [50]


def test_a_block_that_could_go_carries_who_made_it_and_when() -> None:
    device = Analysis(rank_trace([Alloc("w", 10, Category.WEIGHTS, "fc.weight", "build"), Oom(80)])).device(0)
    block = block_of(device, 0)
    assert (block.block_bytes, block.category, block.owner) == (10 * MiB, "weights", "fc.weight")
    assert (block.site, block.alloc_event) == ("/home/me/train.py:7 build", 1)
