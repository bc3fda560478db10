"""The largest value of a script's own argument that fits a card, by running the script dry with other values.

Each trial is a dry run of the script as it is, in a process of its own, on a simulated card of that memory: what does
not fit ends as it would there. It is taken that more needs more: what fits is confirmed at its border and one past it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.gpus import GpuModel
from memscope.planning.plan import MOST
from memscope.trace.container import read_container

_OWN = "memscope:"
_MOST_WORDS = 200
_MOST_GROWTH = 16
_ENOUGH_ALIKE = 3
"""So many runs that need the same say that the argument has no part in it."""
_SEGMENT_BYTES = 20 << 20
"""What the allocator asks the driver for where blocks are small."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One dry run.

    Attributes
    ----------
    value
        The argument's.
    fits
        Whether the script came to its end.
    peak_allocated_bytes, peak_reserved_bytes
        What it had at most; of one that did not fit, before the request that failed.
    needed_bytes
        What it reserved at most, or what was in use with the request that failed.
    """

    value: int
    fits: bool
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """An answer.

    Attributes
    ----------
    value
        The largest that fits; None where the least does not.
    confirmed
        Whether a run fits there and another, one past it, does not.
    trials
        Every run, in order.
    note
        What bounds the answer besides memory, or speaks against it; None where nothing does.
    """

    argument: str
    gpu: str
    capacity_bytes: int
    value: int | None
    confirmed: bool
    trials: tuple[Trial, ...]
    note: str | None = None

    @property
    def changes_memory(self) -> bool | None:
        """Whether runs with different values needed different memory; None where only one was made."""
        return None if len(self.trials) < 2 else not _need_the_same(self.trials)


def with_value(arguments: Sequence[str], argument: str, value: int) -> list[str]:
    """A script's arguments with a value of one of them, in the place of the one that is there, else at the end.

    >>> with_value(["--steps", "3", "--batch", "8"], "--batch", 16)
    ['--steps', '3', '--batch', '16']
    >>> with_value(["--batch=8"], "--batch", 16)
    ['--batch=16']
    >>> with_value([], "train.batch=", 16)
    ['train.batch=16']
    """
    name = argument.removesuffix("=")
    joined = f"{name}={value}"
    changed = list(arguments)
    for i, each in enumerate(changed):
        if each.startswith(f"{name}="):
            changed[i] = joined
            return changed
        if each == name and not argument.endswith("=") and i + 1 < len(changed):
            changed[i + 1] = str(value)
            return changed
    return [*changed, joined] if argument.endswith("=") else [*changed, name, str(value)]


def fit_script(
    target: Sequence[str],
    arguments: Sequence[str],
    argument: str,
    gpu: GpuModel,
    *,
    least: int = 1,
    most: int = MOST,
    on_run: Callable[[str], None] | None = None,
) -> Fitted:
    """The largest value of an argument with which a script comes to its end on a card.

    Parameters
    ----------
    target
        The script, or ``-m`` and a module.
    least, most
        Values that can be.

    Raises
    ------
    UsageError
        If the bounds are none, a run ends for another reason than memory, or asks for none of the device.
    """
    if not 0 <= least <= most <= MOST:
        raise UsageError(f"from {least:,} to {most:,}: choose bounds from 0 to {MOST:,}, the lower one first")
    trials: dict[int, Trial] = {}

    def fits(value: int) -> bool:
        if value not in trials:
            if on_run is not None:
                on_run(f"{target[-1]} with {argument} {value:,}")
            trials[value] = _run(target, with_value(arguments, argument, value), value, gpu)
        return trials[value].fits

    def answer(value: int | None, *, confirmed: bool, note: str | None = None) -> Fitted:
        return Fitted(argument, gpu.name, gpu.usable_bytes, value, confirmed, tuple(trials.values()), note)

    if not fits(least):
        return answer(None, confirmed=False)
    value, high = least, most + 1
    while high - value > 1:
        guess = _next(trials, value, high, most, gpu.usable_bytes)
        value, high = (guess, high) if fits(guess) else (value, guess)
        if len(trials) >= _ENOUGH_ALIKE and _need_the_same(list(trials.values())):
            return answer(value, confirmed=False, note=f"larger ones than {value:,} were not tried")
    confirmed = value < most and fits(value) and not fits(value + 1)
    note = None if value < most else f"{most:,} is the most that was asked for"
    return answer(value, confirmed=confirmed, note=_against(list(trials.values())) or note)


def _need_the_same(trials: Sequence[Trial]) -> bool:
    return all(trial.fits for trial in trials) and len({trial.needed_bytes for trial in trials}) == 1


def _against(trials: Sequence[Trial]) -> str | None:
    """What speaks against taking it that more needs more; None where nothing does."""
    fitting = sorted((trial for trial in trials if trial.fits), key=lambda trial: trial.value)
    for less, more in pairwise(fitting):
        if more.needed_bytes < less.needed_bytes - _SEGMENT_BYTES:
            return (
                f"but {more.value:,} needs less than {less.value:,}: where more does not need more, others may fit "
                "that were not tried"
            )
    return None


def _next(trials: Mapping[int, Trial], low: int, high: int, most: int, capacity_bytes: int) -> int:
    """Which value to try next, strictly between one that fits and one that does not, or cannot be.

    Of a run that did not fit only that is known: the line goes through those that did. Reserved memory goes in steps of
    a segment, and by as much the line may be wrong.
    """
    fitting = sorted((trial for trial in trials.values() if trial.fits), key=lambda trial: trial.value)
    first, last = fitting[0], fitting[-1]
    slope = (last.needed_bytes - first.needed_bytes) / max(last.value - first.value, 1)
    if slope <= 0:
        return (low + high) // 2 if high <= most else min(_MOST_GROWTH * max(low, 1), high - 1)
    reached = low + int((capacity_bytes - last.needed_bytes) / slope)
    margin = max(1, int(_SEGMENT_BYTES / slope))
    if high > most:
        return max(low + 1, min(reached + margin // 2, _MOST_GROWTH * max(low, 1), high - 1))
    if high - low > 2 * margin:
        return max(low + 1, min(reached if reached > low + margin // 2 else low + margin, high - 1))
    return (low + high) // 2


def _run(target: Sequence[str], arguments: Sequence[str], value: int, gpu: GpuModel) -> Trial:
    with tempfile.TemporaryDirectory(prefix="memscope-fit-") as folder:
        path = Path(folder) / "run.memscope"
        options = ("--dry-run", "--no-stacks", "--gpu", gpu.name, "-f", "-o", str(path))
        command = [sys.executable, "-m", "memscope", "run", *options, *target, *arguments]
        ended = subprocess.run(  # noqa: S603
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, text=True, errors="replace"
        )
        found = _trial(path, value, is_ended=ended.returncode == 0) if path.exists() else None
    if found is not None:
        return found
    said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    own = [line for line in said if not line.startswith(_OWN)] or [line.removeprefix(_OWN).strip() for line in said]
    why = f": {own[-1][:_MOST_WORDS]}" if own else ""
    what = " ".join([*target, *arguments])
    raise UsageError(f"{what} ended with exit code {ended.returncode}, and not for want of memory{why}")


def _trial(path: Path, value: int, *, is_ended: bool) -> Trial | None:
    """What a run came to; None where memory was not what ended it, or nothing was asked for."""
    trace = read_container(path)
    if not trace.n_events:
        return None
    devices = Analysis(trace).devices
    device = max(devices, key=lambda device: device.peak().allocated_bytes)
    fatal = next((each for each in devices if each.lifetimes.fatal_oom_event is not None), None)
    if not is_ended and fatal is None and not any(len(each.oom_events) for each in devices):
        return None
    allocated, reserved = device.peak().allocated_bytes, device.peak_reserved().reserved_bytes or 0
    if is_ended and fatal is None:
        return Trial(value, True, allocated, reserved, reserved)
    failed = device if fatal is None else fatal
    events = failed.oom_events
    asked = int(trace.size_bytes[events[-1]]) if len(events) else 0
    return Trial(value, False, allocated, reserved, max(reserved, failed.peak().allocated_bytes + asked))
