import numpy as np
import pytest

from memscope._core import caching
from memscope.lifetimes.tables import NEVER
from memscope.replay.caching.engine import replay_caching
from memscope.replay.requests import requests_of
from memscope.techniques.program import GAP, NewRows, Program, read_tensor
from memscope.trace.categories import Category
from tests.techniques.programs import generate, peaks, train


def served(program):
    result = replay_caching(program.device.lifetimes, requests=program.to_requests())
    return int(result.usage.allocated_bytes.max()), result.peak_reserved_bytes


@pytest.mark.parametrize("make", [train, generate])
def test_a_program_that_nothing_changed_asks_for_what_was_recorded(make):
    device = make()
    program, recorded = Program.of(device), requests_of(device.lifetimes)
    made = program.to_requests()
    kept = (recorded.op != caching.Op.NONE) | (recorded.dropped_pool >= 0)
    for name in ("op", "row"):
        assert np.array_equal(getattr(made, name), getattr(recorded, name)[kept])
    truth = peaks(device)
    assert served(program) == (truth.allocated_bytes, truth.reserved_bytes)
    assert served(program.settled()) == served(program)


def test_settling_keeps_the_order_and_the_passes():
    program = Program.of(train())
    crowded = program.with_rows(
        NewRows.of([(int(program.begin[50]) + i, NEVER, 512, 0) for i in (1, 2, 3)], Category(0))
    )
    settled = crowded.settled()
    order = np.argsort(crowded.begin, kind="stable")
    assert np.array_equal(order, np.argsort(settled.begin, kind="stable"))
    gaps = np.diff(np.unique(settled.begin[settled.is_made]))
    assert gaps.min() >= GAP
    for before, after in zip(crowded.passes, settled.passes, strict=True):
        inside = [(p.begin >= each.forward) & (p.begin < each.end) for p, each in ((crowded, before), (settled, after))]
        assert np.array_equal(*inside)


def test_rows_of_no_size_are_not_made():
    program = Program.of(train())
    one = np.arange(len(program)) == 40
    assert not program.with_sizes(one, np.zeros(len(program), np.int64)).is_made[40]
    assert len(program.with_rows(NewRows.of([(GAP, NEVER, 0, 0)], Category.WEIGHTS))) == len(program)


def test_a_copy_has_its_models_pool_and_name():
    program = Program.of(train())
    row = int(np.flatnonzero(program.of_category(Category.GRADIENTS))[0])
    copy = program.with_rows(NewRows.of([(GAP, 2 * GAP, 1024, row)], Category.TEMPORARIES))
    assert copy.owners[-1] == program.owners[row]
    assert (copy.pair[-1], copy.size_bytes[-1], copy.category[-1]) == (program.pair[row], 1024, Category.TEMPORARIES)


@pytest.mark.parametrize("text", ["float32", "float32 [a]", "float32 [1", ""])
def test_what_is_no_tensors_text_is_none(text):
    assert read_tensor(text) is None


def test_a_scalar_has_no_dimensions():
    assert read_tensor("float32 []") == ("float32", ())
