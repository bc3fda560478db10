"""What nothing of a trace names is left out; what is named keeps its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import load
from memscope.export._used import only_used
from memscope.trace.tables import MarkTable
from tests.naive_layout import random_layout

SHIPPED = Path(__file__).parents[2] / "traces"


@pytest.mark.parametrize("name", ["tiny-llama-train", "tiny-gpt2-generate", "tiny-out-of-memory"])
def test_what_is_named_keeps_its_name(name: str) -> None:
    whole = load(SHIPPED / f"{name}.memscope").trace
    part = replace(
        whole,
        stack_id=np.where(np.arange(whole.n_events) < whole.n_events // 8, whole.stack_id, -1).astype(np.int32),
        marks=MarkTable.from_columns(whole.marks.take(np.arange(1)).columns()),
    )
    found = only_used(part)
    assert 0 < len(found.stacks) < len(whole.stacks)
    assert len(found.strings) < len(whole.strings)
    for column in ("stack_id", "label_id"):
        assert np.array_equal(getattr(found, column) < 0, getattr(part, column) < 0)
    for event in range(0, part.n_events, 37):
        assert found.stack(int(found.stack_id[event])) == part.stack(int(part.stack_id[event]))
        assert found.string(int(found.label_id[event])) == part.string(int(part.label_id[event]))
    for table, column in (("owners", "label_id"), ("owners", "tensor_id"), ("marks", "label_id")):
        ids = [getattr(getattr(one, table), column).tolist() for one in (found, part)]
        assert list(map(found.string, ids[0])) == list(map(part.string, ids[1]))
    assert list(map(found.stack, found.blocks.stack_id.tolist())) == list(
        map(part.stack, part.blocks.stack_id.tolist())
    )
    used = {*found.stack_id.tolist(), *found.blocks.stack_id.tolist(), *found.segments.stack_id.tolist()} - {-1}
    assert used == set(range(len(found.stacks)))


def test_a_trace_that_names_all_is_the_same() -> None:
    once = only_used(random_layout(3, 60).trace())
    again = only_used(once)
    assert again.strings == once.strings
    assert np.array_equal(again.stack_id, once.stack_id)
    assert np.array_equal(again.stacks.offsets, once.stacks.offsets)
