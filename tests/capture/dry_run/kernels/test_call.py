"""A call as a kernel sees it."""

from __future__ import annotations

import pytest

from memscope.capture.dry_run.kernels._call import Call, nbytes

torch = pytest.importorskip("torch")


def test_arguments_are_found_by_their_names_however_they_were_given() -> None:
    func = torch.ops.aten.sum.dim_IntList
    x = torch.zeros(3, 4)
    for call in (Call(func, (x, [1])), Call(func, (x,), {"dim": [1]})):
        assert call.get("dim") == [1]
        assert call.get("keepdim", False) is False
        assert call.get("no_such") is None


def test_results_are_told_one_by_one() -> None:
    x = torch.zeros(3)
    assert Call(None, (), result=x).results == (x,)
    assert Call(None, (), result=[x, x]).results == (x, x)
    assert nbytes(x) == 12
