"""The timeline as Perfetto's own trace processor reads it: counters equal the series, slices are steps and allocations.

The program is no part of Perfetto's package, which downloads it: the tests take it from ``TRACE_PROCESSOR``, a path, or
from where programs are found. CONTRIBUTING.md says how it is built.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import Analysis, load
from memscope.export._timeline import write_timeline
from tests.export.test_timeline import carried, written
from tests.training_trace import training_trace

PROGRAM = os.environ.get("TRACE_PROCESSOR") or shutil.which("trace_processor_shell") or shutil.which("trace_processor")
SHIPPED = Path(__file__).parents[2] / "traces"
COUNTERS = "select t.name, c.ts, c.value from counter c join counter_track t on c.track_id = t.id order by c.id"
SLICES = "select s.name, s.ts, s.dur from slice s order by s.id"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Perfetto's trace processor is not here: set TRACE_PROCESSOR")


def asked(path: Path, query: str) -> list[list[str]]:
    """Rows that the trace processor answers."""
    assert PROGRAM is not None
    (path.parent / "query.sql").write_text(query + ";\n", encoding="utf-8")
    command = [PROGRAM, "-q", str(path.parent / "query.sql"), str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return list(csv.reader(answer.stdout.splitlines()))[1:]


def exported(analysis: Analysis, path: Path) -> Path:
    with path.open("wb") as out:
        write_timeline(analysis, out)
    return path


@pytest.mark.parametrize("name", ["tiny-llama-train", "tiny-gpt2-generate", "tiny-out-of-memory"])
def test_counters_are_the_series(tmp_path: Path, name: str) -> None:
    analysis = load(SHIPPED / f"{name}.memscope")
    device = analysis.device()
    rows = asked(exported(analysis, tmp_path / "run.json"), COUNTERS)
    times = np.asarray(analysis.trace.time_ns)
    times = times - times[0]
    last = np.append(times[1:] != times[:-1], True)
    series = {"allocated": device.usage.allocated_bytes, "reserved": device.usage.reserved_bytes}
    series |= {category.label: values for category, values in device.category_usage.items()}
    for label, values in series.items():
        assert values is not None
        # Perfetto names a counter of Chrome's JSON by its name and the name of its argument.
        changes = [(int(ts), int(float(value))) for track, ts, value in rows if track in (label, f"{label} bytes")]
        assert carried(changes, times[last]) == values[1:][last].tolist(), label


def test_every_slice_is_there(tmp_path: Path) -> None:
    analysis = Analysis(training_trace())
    events = written(analysis)["traceEvents"]
    rows = asked(exported(analysis, tmp_path / "run.json"), SLICES)
    assert Counter(name for name, *_ in rows) == Counter(event["name"] for event in events if event["ph"] in "Xb")
    closed = {
        (event["name"], round(event["ts"] * 1000), round(event["dur"] * 1000)) for event in events if event["ph"] == "X"
    }
    assert closed <= {(name, int(ts), int(dur)) for name, ts, dur in rows}
