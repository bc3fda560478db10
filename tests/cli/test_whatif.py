"""``memscope whatif``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.container import write_container
from tests.conftest import Outcome
from tests.techniques.programs import train

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whatif") / "train.memscope"
    write_container(train().trace, path)
    return path


def test_techniques_are_answered_each_and_together(memscope: Run, trained: Path) -> None:
    asked = ("--apply", "optimizer:8bit", "-a", "checkpoint:every=1")
    content = json.loads(memscope("whatif", trained, *asked, "--json").out)
    assert content["schema_version"] == 1
    assert [result["technique"] for result in content["results"]] == ["optimizer:8bit", "checkpoint:every=1"]
    assert content["together"]["technique"] == "optimizer:8bit + checkpoint:every=1"
    text = memscope("whatif", trained, *asked)
    assert text.code == 0
    assert "optimizer:8bit" in text.out


def test_all_ranks_what_applies(memscope: Run, trained: Path) -> None:
    content = json.loads(memscope("whatif", trained, "--all", "--json").out)
    savings = [result["saved_bytes"] for result in content["results"]]
    assert savings == sorted(savings, reverse=True)


def test_what_is_in_force_saves_nothing_and_is_no_failure(memscope: Run, trained: Path) -> None:
    answer = memscope("whatif", trained, "--apply", "set-to-none", "--json")
    (result,) = json.loads(answer.out)["results"]
    assert (answer.code, result["saved_bytes"]) == (0, 0)
    assert result["note"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "choose one of --apply TECHNIQUE, --all for every one that applies, and --fit GPU"),
        (("--all", "--apply", "static-kv"), "choose one of --apply TECHNIQUE"),
        (("--fit", "nothing"), "'nothing' is not a known GPU"),
        (("--fit", "300MiB"), "300MiB: PyTorch can have nothing of a card of that size"),
        (("--apply", "micro-batch:9"), "micro-batch:9 does not apply: the recorded batch has 8 samples"),
        (("--apply", "kv:fp8"), "kv:fp8 does not apply: no key/value cache was seen in this trace"),
        (
            ("-a", "optimizer:8bit", "-a", "optimizer:sgd"),
            "optimizer:8bit and optimizer:sgd: a program has one optimizer: ask for one of them",
        ),
        (("-a", "micro-batch:2", "-a", "micro-batch:2"), "micro-batch:2 is asked for twice"),
        (("--apply", "optimiser:sgd"), "there is no technique 'optimiser:sgd': did you mean 'optimizer:sgd'?"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(
    memscope: Run, trained: Path, options: tuple[str, ...], reason: str
) -> None:
    answer = memscope("whatif", trained, *options)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"memscope: {reason}")
    assert answer.err.count("\n") == 1


def test_the_list_needs_no_trace(memscope: Run) -> None:
    assert "checkpoint:every=N" in memscope("whatif", "--list").out
    assert memscope("whatif").err == "memscope: give a TRACE, or --list for the techniques\n"


def test_a_plan_for_a_card_is_a_list_to_follow(memscope: Run, trained: Path) -> None:
    content = json.loads(memscope("whatif", trained, "--fit", "712MiB", "--json").out)
    assert content["fits"] is True
    assert content["plan"] == [result["technique"] for result in content["results"]]
    assert content["peak_reserved_bytes"] <= content["capacity_bytes"]
    text = memscope("whatif", trained, "--fit", "712MiB").out
    assert f"1. {content['plan'][0]}: " in text


@pytest.mark.parametrize("options", [("--all",), ("--fit", "A100-80GB")])
def test_a_recording_that_ran_out_of_memory_warns(memscope: Run, options: tuple[str, ...]) -> None:
    trace = Path("traces/tiny-out-of-memory.memscope")
    words = "memory ran out in this recording"
    assert f"! {words}" in memscope("whatif", trace, *options).out
    (warning,) = json.loads(memscope("whatif", trace, *options, "--json").out)["warnings"]
    assert warning.startswith(words)
