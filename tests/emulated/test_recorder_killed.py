"""Recordings that are killed can be opened, as far as they were drained, and say what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memscope.emulation.launch import EmulatedMachine
from tests.emulated.conftest import PROGRAMS, environment_of, run_python

pytestmark = pytest.mark.emulated
_N_KILLS = 20
_MACHINE = EmulatedMachine("a device", 4 << 30, 100 << 20, (8, 0), 108)


def test_a_recording_killed_at_any_moment_opens_with_its_loss_stated(tmp_path: Path) -> None:
    program = PROGRAMS / "recorder_killed.py"
    ended = run_python(program, tmp_path, "1", str(_N_KILLS), environment=environment_of(_MACHINE))
    assert ended.code == 0, ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert len(found) == _N_KILLS
    for one in found:
        assert "counted" in one, one
        assert one["message"].endswith("killed.memscope.part")
        assert "cut off" in one["notes"][-1]
        assert one["lost"] is None or one["lost"] > 0
        assert one["counted"] + (one["lost"] or 0) <= one["made"] + 4000  # the first step may not have been over
    # What was older than a second is there; a machine that is busy with other things may once be late.
    late = [one for one in found if one["counted"] < one["older"]]
    assert len(late) <= 1, late
    assert max(one["older"] for one in found) > 4000, "no recording was longer than a second"
    assert max(one["counted"] for one in found) > 4000, "no recording was longer than the ring"
    assert max(one["steps"] for one in found) > 10
