"""``memscope replay``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.replay.compare import DEFAULT_CONFS
from memscope.replay.strategies import STRATEGIES
from tests.conftest import Outcome

Run = Callable[..., Outcome]


MiB = 1 << 20


def test_replay_compares_the_recording_with_every_strategy(memscope: Run, simulated_file: Path) -> None:
    content = json.loads(memscope("replay", simulated_file, "--json").out)
    results = {(r["strategy"], r["conf"]): r for r in content["results"]}
    others = {(name, None) for name, strategy in STRATEGIES.items() if not strategy.takes_conf}
    assert set(results) == {*(("caching", conf) for conf in DEFAULT_CONFS), *others}
    default = results["caching", ""]
    assert default["peak_reserved_bytes"] == content["recorded"]["peak_reserved_bytes"]
    assert default["exactness"] == "exact"
    assert results["lower-bound", None]["exactness"] == "bound"
    assert all(
        results["lower-bound", None]["peak_reserved_bytes"] <= r["peak_reserved_bytes"] for r in results.values()
    )
    peaks = [r["peak_reserved_bytes"] for r in content["results"]]
    assert peaks == sorted(peaks)
    recorded = content["recorded"]["peak_reserved_bytes"]
    assert all(r["saved_bytes"] == recorded - r["peak_reserved_bytes"] for r in content["results"])
    for r in results.values():
        assert r["unused_bytes"]["largest"] >= r["unused_bytes"]["mean_over_events"] >= 0
        assert r["exactness"] != "modelled" or r["notes"]
    assert default["driver_calls"] == {"cudaMalloc": default["n_device_allocs"]}
    assert default["fragmentation"]["reserved_bytes"] == default["peak_reserved_bytes"]
    text = memscope("replay", simulated_file)
    assert text.code == 0
    assert all(name in text.out for name in STRATEGIES)


def test_replay_on_a_small_device_runs_out_and_says_where(memscope: Run, simulated_file: Path) -> None:
    content = json.loads(
        memscope("replay", simulated_file, "--strategy", "caching", "--conf", "", "--capacity", "22MiB", "--json").out
    )
    (result,) = content["results"]
    assert {"event", "requested_bytes", "free_bytes"} <= set(result["oom"])
    assert result["oom"]["largest_free_block_bytes"] <= result["oom"]["reserved_free_bytes"]
    assert result["oom"]["free_bytes"] < result["oom"]["requested_bytes"] + 20 * MiB


@pytest.mark.parametrize(
    "arguments",
    [
        ("--strategy", "magic"),
        ("--conf", "nonsense:1"),
        ("--conf", "backend:cudaMallocAsync"),
        ("--capacity", "lots"),
        ("--held-by-others", "some"),
        ("--memory-fraction", "0.5"),
        ("--address", "tcp://127.0.0.1:1"),
        ("--jobs", "0"),
    ],
    ids="=".join,
)
def test_what_cannot_be_replayed_is_one_line_and_exit_1(
    memscope: Run, simulated_file: Path, arguments: tuple[str, str]
) -> None:
    outcome = memscope("replay", simulated_file, *arguments)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1


def test_several_traces_are_compared_each_by_itself(memscope: Run, simulated_file: Path) -> None:
    arguments = ("replay", simulated_file, simulated_file, "--conf", "", "--json")
    content = json.loads(memscope(*arguments).out)
    one, other = content["traces"]
    assert one == other
    assert [r["conf"] for r in one["results"]] == [""]


def test_the_strategies_are_listed_with_what_they_are(memscope: Run) -> None:
    outcome = memscope("replay", "--list")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == list(STRATEGIES)


def test_memory_held_by_others_and_a_fraction_leave_less(memscope: Run, simulated_file: Path) -> None:
    def reserved(*arguments: str) -> int:
        outcome = memscope("replay", simulated_file, "--conf", "", "--capacity", "1GiB", *arguments, "--json")
        (result,) = json.loads(outcome.out)["results"]
        return 0 if result["oom"] else result["peak_reserved_bytes"]

    assert reserved() == reserved("--memory-fraction", "0.5") > 0
    assert reserved("--held-by-others", "1000MiB") == 0
    assert reserved("--memory-fraction", "0.02") == 0


def test_combinations_known_to_harm_are_warned_of(memscope: Run, simulated_file: Path) -> None:
    outcome = memscope("replay", simulated_file, "--conf", "expandable_segments:True,max_split_size_mb:64")
    assert outcome.code == 0
    assert "pytorch#123548" in outcome.out.replace("\n", "")


def test_replays_in_processes_print_the_same(memscope: Run, simulated_file: Path) -> None:
    arguments = ("replay", simulated_file, "--strategy", "caching", "--json")
    assert memscope(*arguments, "--jobs", "2").out == memscope(*arguments).out


def test_a_page_of_all_traces_is_written_in_place_of_text(memscope: Run, simulated_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "replay.html"
    arguments = ("replay", simulated_file, simulated_file, "--strategy", "bfc", "-o", page)
    assert memscope(*arguments) == (0, "", f"memscope: wrote {page}\n")
    content = page.read_text()
    assert content.count('class="picture"') == 2
    assert "bfc: the memory of the device is its only limit" in content
    assert "exists already" in memscope(*arguments).err
    assert memscope(*arguments, "-f").code == 0


def test_assumptions_are_counted_unless_they_are_asked_for(memscope: Run, simulated_file: Path) -> None:
    short, whole = memscope("replay", simulated_file).out, memscope("replay", simulated_file, "--explain").out
    note = "bfc: the memory of the device is its only limit"
    assert note not in short
    assert "assumptions: --explain lists them" in short
    assert note in whole
    assert "--explain" not in whole
    assert len(short.splitlines()) < len(whole.splitlines()) - 15
    # A few are said at once.
    assert "buddy: the driver is asked for 32 MiB" in memscope("replay", simulated_file, "--strategy", "buddy").out
