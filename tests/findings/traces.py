"""Traces that findings are looked for in."""

from __future__ import annotations

from pathlib import Path

from memscope.analysis import Analysis
from tests.replay.recordings import Recorder

SHIPPED = Path(__file__).resolve().parents[2] / "traces"


def analysed(recorder: Recorder) -> Analysis:
    return Analysis(recorder.trace())
