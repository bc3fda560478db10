"""Storages of a dry run are allocations, from their first tensor to the end of their last."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.capture.dry_run._storages import Allocation, OwnerBook
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind
from tests.capture.programs import dry_run, live_bytes, owners, sizes, small_model, train

torch = pytest.importorskip("torch")


def test_phases_and_optimizer_steps_are_marked() -> None:
    with dry_run() as rec:
        train(small_model(), steps=2)
    labels = [rec.trace.strings[label] for label in rec.trace.marks.label_id]
    once = ["forward", "forward", "backward", "backward", "optimizer", "optimizer"]
    assert labels == [*once, "0", *once, "1"]
    assert np.all(np.diff(rec.trace.marks.event) >= 0)


def test_steps_that_the_program_names_replace_those_of_its_optimizer() -> None:
    with dry_run() as rec:
        train(small_model(), steps=1)
        rec.step("warm-up")
    steps = rec.trace.marks.label_id[rec.trace.marks.kind == MarkKind.STEP]
    assert [rec.trace.strings[label] for label in steps] == ["warm-up"]


def test_the_sizes_of_storages_are_the_requests() -> None:
    with dry_run() as rec:
        kept = [torch.empty(1000, device="cuda"), torch.zeros(3, 5, dtype=torch.bfloat16, device="cuda:0")]
        assert torch.cuda.memory_allocated() == 4096 + 512
    rec.trace.check()
    assert sizes(rec.trace, Action.ALLOC) == [4000, 30]
    assert len(kept) == 2


def test_a_released_storage_is_freed_at_once() -> None:
    with dry_run() as rec:
        first = torch.empty(1000, device="cuda")
        del first
        second = torch.empty(1000, device="cuda")
    trace = rec.trace
    actions = [Action(int(action)) for action in trace.action]
    assert actions == [
        Action.SEGMENT_ALLOC,
        Action.ALLOC,
        Action.FREE_REQUESTED,
        Action.FREE_COMPLETED,
        Action.ALLOC,
    ]
    assert trace.address[1] == trace.address[4]
    assert second.shape == (1000,)


def test_views_and_in_place_operations_allocate_nothing() -> None:
    with dry_run() as rec:
        base = torch.zeros(4, 4, device="cuda")
        view = base[1:].t().reshape(4, 3)
        base.add_(1).mul_(2).normal_()
        base.uniform_()
        alias = base.detach()
    assert sizes(rec.trace, Action.ALLOC) == [64]
    assert (view.shape, alias.shape) == ((4, 3), (4, 4))


def test_a_view_keeps_its_storage_alive() -> None:
    with dry_run() as rec:
        view = torch.zeros(1 << 20, device="cuda")[:1]
        assert torch.cuda.memory_allocated() == 4 << 20
        del view
        assert torch.cuda.memory_allocated() == 0
    assert live_bytes(rec.trace)[-1] == 0


def test_a_storage_that_is_resized_moves() -> None:
    with dry_run() as rec:
        tensor = torch.empty(1024, device="cuda")
        tensor.untyped_storage().resize_(0)
        assert torch.cuda.memory_allocated() == 0
        tensor.untyped_storage().resize_(4096)
        assert torch.cuda.memory_allocated() == 4096
        grown = torch.empty(0, device="cuda").resize_(8)
    assert sizes(rec.trace, Action.ALLOC) == [4096, 4096, 32]
    assert grown.shape == (8,)


def test_one_owner_at_most_and_none_for_what_nothing_owns() -> None:
    with dry_run() as rec:
        stray = torch.zeros(7, device="cuda")
    assert owners(rec.trace) == {}
    assert stray.numel() == 7


def test_a_stronger_claim_replaces_a_weaker_and_a_tag_all() -> None:
    builder = TraceBuilder()
    for address in (512, 1024):
        builder.add_event(Action.ALLOC, address=address, size_bytes=1)
    book = OwnerBook(builder)
    first, second = (Allocation(event, 512 * (event + 1), 1, phase_serial=1, place="layer") for event in range(2))
    book.claim(first, Category.ACTIVATIONS, "saved")
    book.claim(first, Category.INPUTS, "argument 0")
    book.claim(first, Category.INPUTS, "a later name of an input")
    book.claim(first, Category.TEMPORARIES, "weaker")
    book.tag(second, "kv_cache: mine")
    book.claim(second, Category.WEIGHTS, "stronger than anything but a tag")
    book.died(second, 1)
    assert owners(builder.build(TraceMetadata(source="dry-run"))) == {
        0: (Category.INPUTS, "argument 0"),
        1: (Category.KV_CACHE, "mine"),
    }


def test_a_weight_goes_by_its_last_name_and_what_one_phase_makes_and_frees_is_temporary() -> None:
    builder = TraceBuilder()
    for address in (512, 1024, 1536):
        builder.add_event(Action.ALLOC, address=address, size_bytes=1)
    book = OwnerBook(builder)
    weight, temporary, outliving = (Allocation(event, 512, 1, phase_serial=3, place="layer") for event in range(3))
    book.claim(weight, Category.WEIGHTS, "Linear.weight")
    book.claim(weight, Category.WEIGHTS, "head.weight")
    book.died(temporary, 3)
    book.died(outliving, 4)
    assert owners(builder.build(TraceMetadata(source="dry-run"))) == {
        0: (Category.WEIGHTS, "head.weight"),
        1: (Category.TEMPORARIES, "layer"),
    }
