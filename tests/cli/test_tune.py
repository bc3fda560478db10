"""``memscope tune``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Run = Callable[..., Outcome]


def test_tune_prints_the_line_or_says_that_nothing_helps(memscope: Run, simulated_file: Path) -> None:
    content = json.loads(memscope("tune", simulated_file, "--json").out)
    keys = {"recommended_conf", "predicted_peak_reserved_bytes", "recorded_peak_reserved_bytes", "lower_bound_bytes"}
    assert {*keys, "verdict"} <= set(content)
    text = memscope("tune", simulated_file)
    assert text.code == 0
    assert content["verdict"] in text.out.replace("\n", "")
    if content["recommended_conf"] is None:
        assert "ALLOC_CONF=" not in text.out
    else:
        assert f"\n{content['line']}\n" in text.out


def test_tune_for_a_small_device_says_what_the_requests_need(memscope: Run, simulated_file: Path) -> None:
    content = json.loads(memscope("tune", simulated_file, "--capacity", "22MiB", "--json").out)
    assert content["recommended_conf"] is None
    assert content["predicted_peak_reserved_bytes"] is None
    assert "no setting avoids running out of memory" in content["verdict"]


@pytest.mark.parametrize("verb", ["tune", "replay"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--capacity", "0"), "a capacity must be above 0"),
        (("--capacity", "0GiB"), "a capacity must be above 0"),
        (
            ("--capacity", "1GiB", "--held-by-others", "1GiB"),
            "nothing is left: others hold 1.0 GiB of a capacity of 1.0 GiB",
        ),
        (("--memory-fraction", "nan"), "a memory fraction of nan is not between 0 and 1"),
        (("--memory-fraction", "0"), "a memory fraction of 0 is not between 0 and 1"),
    ],
)
def test_a_device_that_cannot_be_is_refused(
    memscope: Run, simulated_file: Path, verb: str, options: tuple[str, ...], reason: str
) -> None:
    assert memscope(verb, simulated_file, *options) == (1, "", f"memscope: {reason}\n")
