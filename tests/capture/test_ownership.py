"""Tags, strengths and names: what ownership is decided by."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from memscope.capture.ownership import (
    STRENGTH,
    ModulePaths,
    WeakCollection,
    buffer_category,
    is_cache_name,
    named_buffers,
)
from memscope.trace.categories import Category


class Thing:
    """Something that can be referred to weakly."""


def test_every_category_has_a_strength_and_weights_are_the_strongest() -> None:
    assert set(STRENGTH) == set(Category)
    assert min(STRENGTH, key=STRENGTH.__getitem__) == Category.WEIGHTS
    assert STRENGTH[Category.INPUTS] < STRENGTH[Category.ACTIVATIONS] < STRENGTH[Category.TEMPORARIES]


def test_a_collection_keeps_by_identity_what_lives_in_order_of_rank() -> None:
    large, small, plain = Thing(), Thing(), SimpleNamespace()  # the last cannot be referred to weakly
    collection = WeakCollection()
    for item, rank in ((large, 3), (small, 1), (plain, 1)):
        collection.add(item, rank)
    assert list(collection) == [small, plain, large]
    assert large in collection
    assert SimpleNamespace() not in collection
    del large, small
    gc.collect()
    collection.add(Thing())
    assert list(collection) == [plain]


def test_a_module_goes_by_its_path_and_one_of_no_model_by_its_type() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.ReLU()))
    paths = ModulePaths()
    assert paths.learn(model) == 3
    assert [paths.of(module) for module in (model, model[0], model[0][0])] == ["Sequential", "0", "0.0"]
    assert paths.of(torch.nn.GELU()) == "GELU"
    paths.learn(model[0])
    assert paths.of(model[0]) == "0"


def test_a_part_keeps_its_place_in_the_largest_model_however_it_is_called() -> None:
    torch = pytest.importorskip("torch")
    block = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU())
    paths = ModulePaths()
    paths.learn(block)
    assert paths.in_larger(block) == {}
    assert paths.of(block[1]) == "1"
    model = torch.nn.Sequential(torch.nn.ReLU(), block)
    paths.learn(model)
    again = torch.nn.Sequential(block)  # a part made for a checkpoint, of layers that the model has
    for part in (block, block[1], again):
        paths.learn(part)
    assert [paths.of(module) for module in (model, block, *block)] == ["Sequential", "1", "1.0", "1.1"]
    assert paths.in_larger(block) == {"": "1", "0": "1.0", "1": "1.1"}
    assert paths.in_larger(again) == {"0": "1", "0.0": "1.0", "0.1": "1.1"}
    assert paths.in_larger(model) == {}
    whole = torch.nn.ModuleDict({"module": model})
    paths.learn(whole)
    assert paths.of(block[1]) == "module.1.1"
    paths.learn(torch.nn.ModuleDict({"other": model}))  # of two that are as large the later one, as for its weights
    assert paths.of(block[1]) == "other.1.1"


def test_buffers_go_by_another_path_where_their_module_does() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1))
    found = [name for name, _, _ in named_buffers(model, {"0": "layers.3.norm"})]
    assert found == [f"layers.3.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]


def test_buffers_that_checkpoints_leave_out_are_workspace() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Module())
    model[0].register_buffer("mean", torch.zeros(1))
    model[0].register_buffer("table", torch.zeros(2), persistent=False)
    model[0].register_buffer("none", None)
    found = [(name, len(buffer), category) for name, buffer, category in named_buffers(model)]
    assert found == [("0.mean", 1, Category.WEIGHTS), ("0.table", 2, Category.WORKSPACE)]


@pytest.mark.parametrize(
    ("name", "is_cache"),
    [
        ("cache_k", True),
        ("v_cache", True),
        ("kv_cache", True),
        ("key_cache_3", True),
        ("past_value_cache", True),
        ("cos_cached", False),
        ("cache", False),
        ("key_embedding", False),
        ("quantizer_cache_size", False),
    ],
)
def test_keys_and_values_that_a_module_keeps_are_known_by_their_name(name: str, is_cache: bool) -> None:
    assert is_cache_name(name) == is_cache


def test_caches_of_a_module_are_caches_unless_a_graph_keeps_them() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Module()
    module.register_buffer("cache_k", torch.zeros(3))
    module.cache_v = torch.zeros(4)
    found = {name: category for name, _, category in named_buffers(module)}
    assert found == {"cache_k": Category.KV_CACHE, "cache_v": Category.KV_CACHE}
    module.cache_k = module.cache_k * torch.ones(3, requires_grad=True)
    assert buffer_category(module, "cache_k") == Category.ACTIVATIONS
