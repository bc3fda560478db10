"""What is compared with a recording: its own settings again, some others, and the lower bound."""

from __future__ import annotations

from dataclasses import replace

from memscope.analysis import Analysis
from memscope.errors import MemscopeError
from memscope.figures.replay import RECORDED, REPLAYED, ReplayLine, setting_label
from memscope.replay.compare import DEFAULT_CONFS, RecordedRun, recorded_run
from memscope.replay.limits import recorded_capacity
from memscope.replay.result import ReplayResult
from memscope.replay.strategies import ReplayOptions, replay


def replay_lines(analysis: Analysis, device: int, extra: str | None = None) -> list[ReplayLine]:
    """The recording, its replay, the settings compared by default, one more if given, and the lower bound."""
    lines = [recorded_line(recorded_run(analysis.device(device)))]
    capacity = recorded_capacity(analysis.device(device))
    limits = ReplayOptions(total_bytes=capacity.total_bytes, reserved_by_others_bytes=capacity.reserved_by_others_bytes)
    again = _line(analysis, device, "caching", limits, REPLAYED)
    lines.append(again)
    seen = {again.result.conf or ""} if again.result is not None else set()
    for conf in [*([extra] if extra else []), *DEFAULT_CONFS]:
        line = _line(analysis, device, "caching", replace(limits, conf=conf), setting_label("caching", conf))
        printed = conf if line.result is None else line.result.conf or ""
        if printed not in seen or conf == extra:
            lines.append(line)
        seen.add(printed)
    return [*lines, _line(analysis, device, "lower-bound", ReplayOptions(), setting_label("lower-bound", None))]


def recorded_line(run: RecordedRun) -> ReplayLine:
    """The row of the recording itself."""
    counts = (run.n_device_allocs, run.n_device_frees)
    return ReplayLine(RECORDED, "", None, run.peak_reserved_bytes, run.peak_active_bytes, *counts)


def result_line(result: ReplayResult, label: str) -> ReplayLine:
    """The row of a replay."""
    counts = (result.n_device_allocs, result.n_device_frees, result.n_retries)
    return ReplayLine(label, result.exactness, result, result.peak_reserved_bytes, result.peak_active_bytes, *counts)


def _line(analysis: Analysis, device: int, strategy: str, options: ReplayOptions, label: str) -> ReplayLine:
    try:
        found = replay(analysis.device(device), strategy, options)
    except MemscopeError as error:
        return ReplayLine(label, "", None, None, None, problem=str(error))
    return result_line(found, label)
