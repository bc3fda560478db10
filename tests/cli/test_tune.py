"""``memscope tune``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
