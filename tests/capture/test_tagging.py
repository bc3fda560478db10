"""Memory that a program tags: blocks of code, functions, tensors, key/value caches."""

from __future__ import annotations

import pytest

import memscope
import memscope.analysis
from memscope.errors import UsageError
from memscope.trace.categories import Category
from tests.capture.programs import dry_run, owners, requested, small_model, train

torch = pytest.importorskip("torch")


def test_tags_name_memory() -> None:
    @memscope.tag("kv_cache")
    def cache() -> object:
        return torch.zeros(10, device="cuda")

    with dry_run() as rec:
        kept = [cache()]
        with memscope.tag("scratch"), memscope.tag("replay buffer"):
            kept.append(torch.zeros(20, device="cuda"))
        later = torch.zeros(30, device="cuda")
        assert memscope.tag(later, "inputs") is later
        memscope.tag(torch.zeros(1), "host tensors have none")
        kept.append(torch.zeros(40, device="cuda"))
    found = {int(rec.trace.size_bytes[event]): owner for event, owner in owners(rec.trace).items()}
    assert found == {
        40: (Category.KV_CACHE, "kv_cache"),
        80: (Category.UNKNOWN, "replay buffer"),
        120: (Category.INPUTS, "inputs"),
    }
    assert rec.trace.owners.tagged.all()


def test_a_tag_wins_over_what_memscope_finds() -> None:
    with dry_run() as rec:
        with memscope.tag("my weights"):
            model = small_model()
        train(model, steps=1)
    assert requested(rec.trace, Category.WEIGHTS) == {}


def test_tags_do_nothing_where_nothing_is_recorded() -> None:
    with memscope.tag("kv_cache"):
        tensor = memscope.tag(torch.zeros(2), "anything")
    assert tensor.tolist() == [0.0, 0.0]
    with pytest.raises(UsageError, match="tag takes a name"):
        memscope.tag(3, "three")  # type: ignore[type-var]


def test_an_engine_registers_the_cache_that_it_owns() -> None:
    with dry_run() as rec:
        cache = {"layers": [(torch.zeros(600, device="cuda"), torch.zeros(700, device="cuda")) for _ in range(2)]}
        memscope.register_kv_cache(cache)
        memscope.register_kv_cache(torch.zeros(800, device="cuda"))
        with memscope.tag("kv_cache: the pool"):
            pool = torch.zeros(900, device="cuda")
        other = torch.zeros(1000, device="cuda")
    table = rec.trace.owners
    found = {rec.trace.strings[i] for i in table.label_id[table.category == Category.KV_CACHE]}
    assert found == {"layers 0 0", "layers 0 1", "layers 1 0", "layers 1 1", "kv_cache", "the pool"}
    assert len(pool) + len(other) == 1900
    memscope.register_kv_cache(cache)  # nothing is being recorded
    with pytest.raises(UsageError, match="takes tensors, or containers of tensors"):
        memscope.register_kv_cache({"layers": []})
