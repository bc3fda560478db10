"""What operations make of tensors like those before: the same as when they are traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from memscope.capture.dry_run._results import MISSING, ResultCache
from memscope.capture.recorder import Recorder


@pytest.fixture
def made_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The operations whose results were made and not traced, while a dry run is on."""
    found: list[Any] = []
    plain = ResultCache.result

    def noted(self: ResultCache, key: Any, args: tuple[Any, ...]) -> Any:
        result = plain(self, key, args)
        if result is not MISSING:
            found.append(key[0])
        return result

    monkeypatch.setattr(ResultCache, "result", noted)
    with Recorder(None, backend="dry-run", gpu="L4-24GB"):
        yield found


def looks(result: Any) -> Any:
    """All that one sees of tensors: type, shape, strides, offset, device and whether they need gradients."""
    if isinstance(result, tuple | list):
        return [looks(one) for one in result]
    if not isinstance(result, torch.Tensor):
        return result
    place = (result.device, result.dtype, tuple(result.shape), result.stride(), result.storage_offset())
    return (*place, result.untyped_storage().nbytes(), result.requires_grad, result.is_leaf)


CASES: dict[str, Callable[[torch.Tensor], Any]] = {
    "new memory": lambda x: x @ x.t(),
    "another type": lambda x: x.to(torch.bfloat16),
    "a comparison": lambda x: x > 0,
    "several results": lambda x: x.max(dim=1),
    "a number beside": lambda x: (x * 2, x * 2.0, x * True),
    "a view": lambda x: x.view(-1, 2),
    "a view with an offset": lambda x: x[3:, 1],
    "a view of a view": lambda x: x.t()[2:].unsqueeze(0),
    "views of one memory": lambda x: x.split(2),
    "in place": lambda x: x.clone().add_(1).mul_(3),
    "lists": lambda x: torch.cat([x, x, x[:1]]),
    "foreach": lambda x: torch._foreach_mul([x, x + 1], 0.5),
    "of other strides": lambda x: torch.relu(x.t()),
    "an index": lambda x: x.index_select(0, torch.tensor([0, 2], device="cuda")),
    "a factory": lambda _: torch.zeros(3, 4, device="cuda"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_traced_before_looks_the_same_made_again(made_before: list[Any], name: str) -> None:
    run, x = CASES[name], torch.empty(6, 4, device="cuda")
    made_before.clear()
    first = looks(run(x))
    again = [run(x) for _ in range(2)]
    assert [looks(one) for one in again] == [first, first]
    assert made_before


def test_a_made_view_lies_in_the_memory_of_what_it_is_a_view_of(made_before: list[Any]) -> None:
    storages = []
    for _ in range(2):
        x = torch.empty(6, 4, device="cuda")
        assert x.t()[2:].untyped_storage()._cdata == x.untyped_storage()._cdata
        storages.append(x)
    assert torch.ops.aten.t.default in made_before
    assert storages[0].untyped_storage()._cdata != storages[1].untyped_storage()._cdata


def test_what_changes_how_its_argument_looks_is_traced_every_time(made_before: list[Any]) -> None:
    for _ in range(3):
        x = torch.empty(6, 4, device="cuda")
        x.t_()
        assert x.shape == (4, 6)
        x.resize_(2, 2)
        assert x.shape == (2, 2)
    names = {func._schema.name for func in made_before}
    assert not names & {"aten::t_", "aten::resize_"}


def test_a_number_of_another_type_makes_another_result(made_before: list[Any]) -> None:
    for _ in range(2):
        x = torch.ones(4, dtype=torch.int64, device="cuda")
        assert (x * 1).dtype == torch.int64
        assert (x * 1.0).dtype == torch.float32
        assert (x * True).dtype == torch.int64


def test_the_default_type_is_part_of_what_a_result_depends_on(made_before: list[Any]) -> None:
    x = torch.ones(4, dtype=torch.int64, device="cuda")
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            assert (x / 2).dtype == dtype
    finally:
        torch.set_default_dtype(before)


def test_a_wrong_shape_is_refused_every_time(made_before: list[Any]) -> None:
    x = torch.empty(6, 4, device="cuda")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            x @ x


def test_gradients_flow_through_what_was_made(made_before: list[Any]) -> None:
    layer = torch.nn.Linear(8, 8).cuda()
    shapes = []
    for _ in range(3):
        layer.zero_grad()
        layer(torch.empty(2, 8, device="cuda")).relu().sum().backward()
        shapes.append([looks(p.grad) for p in layer.parameters()])
    assert shapes[0] == shapes[1] == shapes[2]
    assert made_before


def test_what_is_made_in_inference_mode_stays_there(made_before: list[Any]) -> None:
    x = torch.empty(6, 4, device="cuda")
    for _ in range(2):
        assert not (x + 1).is_inference()
        with torch.inference_mode():
            assert (x + 1).is_inference()


def test_views_in_inference_mode_are_of_the_mode_of_what_they_show(made_before: list[Any]) -> None:
    parameter = torch.nn.Parameter(torch.empty(1, 4, device="cuda"))
    with torch.inference_mode():
        inner = torch.empty(1, 4, device="cuda")
        for _ in range(3):
            assert not parameter.expand(6, -1).is_inference()
            assert inner.expand(6, -1).is_inference()
    assert torch.ops.aten.expand.default in made_before
