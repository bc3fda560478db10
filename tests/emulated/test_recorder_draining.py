"""A recording longer than the ring has every event that PyTorch's allocator counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memscope.emulation.launch import EmulatedMachine
from tests.emulated.conftest import PROGRAMS, environment_of, run_python

pytestmark = pytest.mark.emulated
_MACHINE = EmulatedMachine("a device", 4 << 30, 100 << 20, (8, 0), 108)


@pytest.mark.parametrize("way", ["fork", "inline"])
def test_nothing_is_lost_where_the_ring_holds_a_tenth(tmp_path: Path, way: str) -> None:
    environment = {**environment_of(_MACHINE), "MEMSCOPE_MAX_EVENTS": "6000", "MEMSCOPE_DRAIN": way}
    ended = run_python(PROGRAMS / "recorder_long.py", tmp_path / "long.memscope", environment=environment)
    assert ended.code == 0, ended.err
    seen = json.loads(ended.out)
    assert seen["n_drains"] >= 5
    assert seen["lost"] == 0
    assert seen["found"] == seen["counted"]
    assert sum(seen["counted"]) > 60_000
    assert seen["problems"] == []
    assert seen["n_steps"] == seen["steps_made"]
    assert seen["peak"] == seen["peak_of_torch"]
