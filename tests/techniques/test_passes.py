from dataclasses import replace
from itertools import pairwise

from memscope.analysis import Analysis
from memscope.techniques.passes import Pass, find_passes
from memscope.trace.tables import MarkTable
from tests.techniques.programs import generate, train


def test_each_step_is_a_pass_with_its_optimizers_step():
    passes = find_passes(train())
    assert len(passes) == 3
    assert all(each.has_step and list(each.times()) == sorted(each.times()) for each in passes)
    assert all(a.step_end <= b.forward for a, b in pairwise(passes))


def test_only_the_last_part_of_a_batch_has_a_step():
    assert [each.has_step for each in find_passes(train(n_parts=2))] == [False, True] * 3


def test_a_generation_has_no_pass():
    assert find_passes(generate()) == ()


def test_without_marks_and_stacks_nothing_is_told():
    trace = replace(train().trace, marks=MarkTable.empty())
    assert find_passes(Analysis(trace).devices[0]) == ()


def test_borders_move_together():
    assert Pass(1, 3, 4, 5, 6, has_step=True, modules_end=2).mapped(lambda time: 10 * time) == Pass(
        10, 30, 40, 50, 60, has_step=True, modules_end=20
    )
