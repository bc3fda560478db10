"""Each kind of transformers' caches in a dry run: every byte of it named, its layers described, its lengths noted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import memscope
from memscope.attribution.attribution import attribute
from memscope.attribution.ledger import ledger_at
from memscope.capture.recorder import Recorder
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category
from memscope.trace.trace import Trace
from tests.capture.cache_rows import EXPECTED, check_rows
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")
cache_utils = pytest.importorskip("transformers.cache_utils")
from tests.capture import cache_programs as programs  # noqa: E402


def cache_bytes(trace: Trace) -> int:
    lifetimes = DeviceLifetimes(trace, 0)
    return int(ledger_at(lifetimes, attribute(lifetimes), lifetimes.last_event)["kv_cache"])


@pytest.mark.parametrize("name", list(EXPECTED))
def test_every_byte_of_a_cache_is_named_its_layers_described_its_lengths_noted(name: str) -> None:
    if name == "hqq":
        pytest.importorskip("hqq")
    recorder: Recorder = dry_run()
    with recorder:
        cache: Any = programs.PROGRAMS[name]()
        held = programs.held_bytes(cache)
    assert held > 0
    assert cache_bytes(recorder.trace) == held
    check_rows(recorder.trace, EXPECTED[name])


def _table(trace: Trace) -> tuple[list[int], list[int]]:
    """Caches and tokens of the lengths noted."""
    return trace.cache_lengths.cache_id.tolist(), trace.cache_lengths.n_tokens.tolist()


def _labels(trace: Trace) -> set[str]:
    return {trace.strings[i] for i in trace.owners.label_id[trace.owners.category == Category.KV_CACHE]}


def test_an_offloaded_layer_is_the_caches_while_it_is_on_the_device() -> None:
    with dry_run() as rec:
        programs.PROGRAMS["offloaded"]()
    trace = rec.trace
    rows = [trace.strings[i] for i in trace.owners.label_id[trace.owners.category == Category.KV_CACHE]]
    n_passes = len(trace.cache_lengths)
    for layer in (0, 1):
        # Made anew in each pass, and brought back before it in each but the first.
        assert rows.count(f"cache 1 layer {layer} keys") >= 2 * n_passes - 1


def test_with_gradients_a_cache_is_an_activation() -> None:
    with dry_run() as rec:
        model, tokens = programs.llama(), programs.prompt()
        held = model(tokens, use_cache=True).past_key_values
    assert len(held.layers) == 2
    assert len(rec.trace.cache_layers) == len(rec.trace.cache_lengths) == 0
    assert _labels(rec.trace) == set()


def test_on_the_host_nothing_is_noted_and_numbers_begin_with_the_first_on_the_device() -> None:
    model = _Layered()
    with dry_run() as rec, torch.no_grad():
        for device in ("cpu", "cuda"):
            cache = cache_utils.DynamicCache()
            cache.update(*(torch.zeros(2, 4, 5, 8, device=device) for _ in range(2)), 0)
            model(torch.zeros(2, 5, device=device), past_key_values=cache)
    assert _table(rec.trace) == ([1], [5])


def test_a_static_cache_that_was_filled_before_is_not_told_until_it_is_emptied() -> None:
    with dry_run() as rec, torch.no_grad():
        model, tokens = programs.llama(), programs.prompt()
        cache = cache_utils.StaticCache(config=model.config, max_cache_len=16)
        cache.update(*(torch.zeros(2, 2, 3, 16, device="cuda") for _ in range(2)), 0)
        model(tokens[:, :2], past_key_values=cache)
        cache.reset()
        model(tokens[:, :2], past_key_values=cache)
        early = cache_utils.StaticCache(config=model.config, max_cache_len=16)
        early.early_initialization(2, 2, 16, torch.bfloat16, torch.device("cuda"))
        model(tokens, past_key_values=early)
    assert _table(rec.trace) == ([1, 1, 1, 2], [-1, 0, 2, programs.PROMPT])


class _Layered(torch.nn.Module):
    """A model that returns what it is given for a cache."""

    def forward(self, _: torch.Tensor, past_key_values: Any) -> Any:
        return SimpleNamespace(past_key_values=past_key_values)


def test_tuples_have_no_number_and_are_described_once() -> None:
    model = _Layered()
    with dry_run() as rec, torch.no_grad():
        tokens = torch.zeros(1, 4, device="cuda")
        steps = []
        for n in (4, 5):
            layer = tuple(torch.zeros(1, 2, n, 8, device="cuda") for _ in range(4))
            steps.append(model(tokens, past_key_values=(layer, layer[:2])))
    layers = rec.trace.cache_layers
    assert layers.layer.tolist() == [0, 1, 0, 1][: len(layers)]
    assert {rec.trace.strings[i] for i in layers.kind_id} == {"tuple"}
    assert layers.key_token_bytes.tolist() == [2 * 8 * 4] * len(layers)
    assert {"layer 0 keys", "layer 0 values", "cross layer 0 keys", "cross layer 0 values"} <= _labels(rec.trace)
    assert set(_table(rec.trace)[0]) == {-1}
    assert 5 in _table(rec.trace)[1]


@pytest.mark.parametrize(
    "cache",
    [
        3,
        "text",
        [1, 2],
        SimpleNamespace(layers=3),
        SimpleNamespace(layers=[None, 1]),
        SimpleNamespace(layers=[SimpleNamespace(keys=dict.keys, values=1, device=torch.device("cuda"))]),
        SimpleNamespace(self_attention_cache=1, cross_attention_cache=None),
    ],
)
def test_a_cache_of_an_unknown_kind_does_not_disturb_the_program(cache: Any) -> None:
    with dry_run() as rec, torch.no_grad():
        result = _Layered()(torch.zeros(1, 4, device="cuda"), past_key_values=cache)
    assert result.past_key_values is cache
    assert len(rec.trace.cache_layers) == len(rec.trace.cache_lengths) == 0


def test_a_loop_that_calls_layers_by_itself_registers_its_cache_after_each_step() -> None:
    with dry_run() as rec:
        cache = cache_utils.DynamicCache()
        for _ in range(3):
            for layer in range(2):
                cache.update(*(torch.zeros(2, 4, 5, 8, device="cuda") for _ in range(2)), layer)
            memscope.register_kv_cache({"mine": cache})
    assert _table(rec.trace) == ([1, 1, 1], [5, 10, 15])
    assert len(rec.trace.cache_layers) == 2
    assert "mine cache 1 layer 1 keys" in _labels(rec.trace)
    memscope.register_kv_cache(cache)  # nothing is being recorded
