"""``memscope kv TRACE``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memscope.trace.container import write_container
from tests.conftest import Outcome
from tests.kv_cache.serving_program import Program, serving_trace
from tests.oracles import REAL, needs_shared
from tests.training_trace import training_trace

Run = Callable[..., Outcome]


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    return write_container(serving_trace(), tmp_path / "serving.memscope")


def _json(memscope: Run, *arguments: object) -> dict[str, Any]:
    outcome = memscope("kv", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def test_the_split_closes_and_layers_and_caches_sum_to_it(memscope: Run, serving: Path) -> None:
    content = _json(memscope, serving)
    assert content["schema_version"] == 1
    assert content["trace"]["name"] == "serving.memscope"
    (device,) = content["devices"]
    names = ("token_bytes", "unused_bytes", "stale_bytes", "untold_bytes", "rounding_bytes")
    assert sum(device[name] for name in names) == device["block_bytes"] == device["peak_bytes"]
    for rows in ("layers", "caches_then"):
        for name in (*names, "block_bytes"):
            assert sum(row[name] for row in device[rows]) == device[name]
    assert [cache["kinds"] for cache in device["caches"]] == [{"DynamicLayer": 4}, {"StaticLayer": 4}]
    assert [cache["n_tokens"] for cache in device["caches"]] == [140, 30]
    assert [cache["capacity_tokens"] for cache in device["caches"]] == [None, 200]


def test_what_growing_costs_is_replayed(memscope: Run, serving: Path) -> None:
    (device,) = _json(memscope, serving)["devices"]
    growth = device["growth"]
    assert growth["n_copies"] == 40 * 8
    recorded, once, pool = growth["replays"]
    assert recorded["exactness"] == "exact"
    assert recorded["saved_bytes"] == 0
    for other in (once, pool):
        assert other["saved_bytes"] == recorded["peak_reserved_bytes"] - other["peak_reserved_bytes"] > 0


def test_any_moment_can_be_asked_for(memscope: Run, serving: Path) -> None:
    (device,) = _json(memscope, serving, "--at", 0)["devices"]
    assert (device["event"], device["block_bytes"]) == (0, 0)
    outcome = memscope("kv", serving, "--at", 10**9)
    assert outcome.code == 1
    assert "is not in this trace" in outcome.err


def test_the_text_says_what_fills_the_cache_and_what_growing_costs(memscope: Run, serving: Path) -> None:
    out = memscope("kv", serving).out
    assert "tokens held:" in out
    assert "as the program's own cache counted them" in out
    assert "a token takes" in out
    assert "DynamicLayer × 4" in out
    assert "It grows by copying: 320 copies moved" in out
    assert "allocated once" in out


def test_a_configuration_tells_the_tokens_of_a_cache_whose_lengths_were_not_recorded(
    memscope: Run, tmp_path: Path
) -> None:
    program = Program()
    cache = program.cache()
    for n_tokens in (7, 8, 9):
        program.dynamic(cache, 0, "keys", n_tokens, 131_072)
    trace = write_container(program.trace(), tmp_path / "grown.memscope")
    (device,) = _json(memscope, trace, "--config", "llama-3-8b", "--at", program.moment - 1)["devices"]
    assert device["configured_bytes_per_token"] == 131_072
    assert device["held_tokens"] == 9
    (device,) = _json(memscope, trace)["devices"]
    assert device["held_tokens"] is None


def test_a_configuration_that_does_not_fit_is_said(memscope: Run, serving: Path) -> None:
    assert "not this model?" in memscope("kv", serving, "--config", "gpt2").out


@needs_shared
def test_an_engines_pool_is_named_with_the_tokens_that_it_has_room_for(memscope: Run) -> None:
    path = REAL / "rlhf-three-pools-no-trace.pickle.gz"
    (device,) = _json(memscope, path, "--config", "qwen2.5-7b")["devices"]
    (pool,) = device["pools"]
    assert pool["name"] == "KV cache of vLLM"
    assert pool["room_tokens"] == pool["untold_bytes"] // device["configured_bytes_per_token"]
    assert "KV cache of vLLM: 20.3 GiB in 24 tensors" in memscope("kv", path).out


def test_a_trace_without_a_cache_says_how_one_would_be_known(memscope: Run, tmp_path: Path) -> None:
    path = write_container(training_trace(), tmp_path / "train.memscope")
    outcome = memscope("kv", path)
    assert outcome.code == 0
    assert "No key/value cache is known of" in outcome.out
    assert _json(memscope, path)["devices"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("TRACE", "--requests", "x.csv"), "--requests is about simulated serving: 'memscope serving'"),
        (("TRACE", "--config", "gpt2", "--manager", "paged"), "--manager is about simulated serving"),
        (("TRACE", "--nonsense"), "there is no option '--nonsense'"),
        (("--config", "gpt2", "--at", 3), "Missing argument 'TRACE'"),
        (("--config", "gpt2", "--rules", "x"), "Missing argument 'TRACE'"),
        ((), "Missing argument 'TRACE'"),
        (("TRACE", "--device", 7), "device 7"),
        (("TRACE", "--config", "nonsense"), "no preset of that name"),
        (("missing.memscope",), "missing.memscope"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    memscope: Run, serving: Path, arguments: tuple[object, ...], message: str
) -> None:
    outcome = memscope("kv", *(serving if argument == "TRACE" else argument for argument in arguments))
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_names_from_a_trace_cannot_steer_the_terminal(memscope: Run, tmp_path: Path) -> None:
    program = Program()
    evil = "[bold]x[/bold]\x1b[31mred\x1b]0;title\x07\nsecond line " + "long " * 500
    program.malloc(1 << 20, evil)
    cache = program.cache()
    program.static(cache, 0, "keys", 10, 1024)
    program.builder.add_cache_layer(cache_id=1, layer=0, kind=evil, n_sequences=1, key_token_bytes=1024)
    path = write_container(program.trace(), tmp_path / "evil.memscope")
    out = memscope("kv", path).out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]" in out
    assert max(map(len, out.splitlines())) < 400
    assert memscope("report", path, "-o", tmp_path / "evil.html").code == 0


def test_a_moment_without_a_cache_and_a_snapshot_without_events_say_so(memscope: Run, serving: Path) -> None:
    out = memscope("kv", serving, "--at", 0).out
    assert "key/value cache 0 B" in out
    assert "tokens held" not in out
    assert "layers 0" not in out


def test_a_page_is_written_in_place_of_text_and_not_over_another(memscope: Run, serving: Path, tmp_path: Path) -> None:
    page = tmp_path / "kv.html"
    assert memscope("kv", serving, "-o", page) == (0, "", f"memscope: wrote {page}\n")
    content = page.read_text()
    assert content.index("<h2>") < content.index("Can it be trusted?")
    assert "exists already" in memscope("kv", serving, "-o", page).err
    both = memscope("kv", serving, "-o", page, "-f", "--json")
    assert (both.code, json.loads(both.out)["schema_version"]) == (0, 1)
