"""What a recording on a GPU notes: owners with the allocator's count, modules with their time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from memscope.capture.cuda._sink import CudaSink, place_of
from memscope.capture.kv_caches import LayerShape
from memscope.capture.ownership import STRENGTH, ModulePaths
from memscope.trace.categories import Category
from memscope.trace.recording.notes import RecordingNotes
from memscope.trace.schema import MarkKind

torch = pytest.importorskip("torch")


class Counter:
    """An allocator that has served as many calls as is said."""

    n_calls = 7

    def calls(self) -> tuple[int, ...]:
        return (self.n_calls,)


class OnDevice:
    """A tensor at an address."""

    is_cuda = True
    device = SimpleNamespace(index=0)

    def __init__(self, address: int) -> None:
        self._address = address

    def untyped_storage(self) -> Any:
        return SimpleNamespace(data_ptr=lambda: self._address)


def make() -> tuple[CudaSink, RecordingNotes, Counter]:
    notes, counter = RecordingNotes(), Counter()
    return CudaSink(notes, counter, ModulePaths(), on_error=lambda _: None), notes, counter  # type: ignore[arg-type]


def test_owners_of_one_moment_are_one_note_at_its_count() -> None:
    sink, notes, counter = make()
    sink.claim(OnDevice(512), Category.WEIGHTS, "w")
    sink.claim(OnDevice(1024), Category.GRADIENTS, "w.grad")
    sink.claim(torch.zeros(1), Category.WEIGHTS, "on the host")
    counter.n_calls = 9
    sink.flush()
    sink.flush()
    [note] = notes.owners
    assert note.calls == (9,)
    assert [(row.address, row.category, row.strength, row.label) for row in note.owners] == [
        (512, Category.WEIGHTS, STRENGTH[Category.WEIGHTS], "w"),
        (1024, Category.GRADIENTS, STRENGTH[Category.GRADIENTS], "w.grad"),
    ]


def test_what_caches_hold_is_noted_with_them() -> None:
    sink, notes, _ = make()
    sink.cache_layer(1, 2, LayerShape("DynamicLayer", 4, 8, 8, -1, -1, 0))
    sink.cache_length(1, 30, 0)
    sink.flush()
    [layer] = notes.cache_layers
    assert tuple(layer)[:4] == (7, 0, 1, 2)
    calls, _, device, cache_id, n_tokens = notes.cache_lengths
    assert (calls, device, cache_id, n_tokens) == (7, 0, 1, 30)
    assert notes.owners == []


def test_a_tensor_without_memory_has_no_place() -> None:
    assert place_of(OnDevice(512)) == (0, 512)
    assert place_of(OnDevice(0)) is None
    assert place_of(SimpleNamespace(is_cuda=True)) is None
    assert place_of(SimpleNamespace(_local_tensor=OnDevice(512))) == (0, 512)
    assert place_of("text") is None


def test_marks_carry_the_count_and_who_said_them() -> None:
    sink, notes, _ = make()
    sink.mark(MarkKind.STEP, "0", is_automatic=True)
    sink.mark(MarkKind.PHASE_BEGIN, "load")
    assert [(mark.calls, mark.kind, mark.label, mark.is_automatic) for mark in notes.marks] == [
        ((7,), MarkKind.STEP, "0", True),
        ((7,), MarkKind.PHASE_BEGIN, "load", False),
    ]


def test_modules_that_are_come_into_and_back_to_are_visits() -> None:
    sink, notes, _ = make()
    inner, outer = torch.nn.ReLU(), torch.nn.Tanh()
    watched = sink.watched_call(lambda module, *_: sink.running[-1] is module, lambda *_: "outermost")
    assert watched(inner) == "outermost"

    def call(module: Any) -> Any:
        return watched(inner)

    assert sink.run(call, outer, (), {})
    assert sink.running == []
    assert [reference() for reference in notes.visits[1::2]] == [outer, inner, outer]
    assert [notes.name_of(reference) for reference in notes.visits[1::2]] == ["Tanh", "ReLU", "Tanh"]
    assert notes.name_of(None) == ""
