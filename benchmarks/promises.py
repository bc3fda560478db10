"""What ``oom`` and ``tune`` promise about programs that run out of memory, and what comes of it when it is done.

    python benchmarks/promises.py [--version 2.11.0] [--only train,lora] [--keep FOLDER]

Each program of ``programs/out_of_memory.py`` is run on the emulated device (the real allocator of a CUDA build of
PyTorch, in ``.venv-emulated/``, which ``make test-emulated`` makes) where there is room, then with just too little and
with a tenth too little. What memscope says of the failed runs is applied, one promise at a time, and the program is run
again: settings in the environment, a smaller batch as the program's option, more memory in the device. A promise holds
if the request that failed is served then, and with a setting everything that the recording has after it. What is said
of blocks freed before the request cannot be applied from outside a program, and is counted apart.

For batches the largest that is really served stands beside the promised one: a promise far below it holds, but costs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import memscope  # noqa: E402
from memscope.advise.tune import tune  # noqa: E402
from memscope.device.limits import Limits  # noqa: E402
from memscope.lifetimes.device import DeviceLifetimes  # noqa: E402
from memscope.oom.judge import judge_oom  # noqa: E402
from memscope.oom.verdict import Counterfactual  # noqa: E402
from memscope.replay.strategies import ReplayOptions, replay  # noqa: E402
from memscope.trace.schema import Action  # noqa: E402
from memscope.units import format_bytes  # noqa: E402

PROGRAM = ROOT / "benchmarks" / "programs" / "out_of_memory.py"
BATCHES = {
    "train": 16,
    "train_fp32": 16,
    "train_lengths": 12,
    "train_accumulated": 16,
    "train_checkpointed": 16,
    "train_longer": 12,
    "evaluate": 24,
    "evaluate_between": 16,
    "lora": 12,
    "generate": 48,
    "generate_requests": 24,
    "stitch": 32,
}
AMPLE_BYTES = 64 << 30
OVERHEAD_BYTES = 256 << 20
GRANULE_BYTES = 2 << 20
SHORT_FRACS = (0.0, 0.1)
"""How much less than the least that is enough, two granules apart from that."""


@dataclass(frozen=True)
class Run:
    """One recorded run of a program."""

    lifetimes: DeviceLifetimes
    path: Path

    @property
    def n_served_before_failure(self) -> int | None:
        """How many requests were served before the first that failed, None where none did."""
        events = self.lifetimes.oom_events
        return self.n_served(int(events[0])) if len(events) else None

    def n_served(self, before_event: int) -> int:
        """How many requests were served before an event."""
        return int(np.count_nonzero(self.lifetimes.trace.action[:before_event] == Action.ALLOC))


class Bench:
    """Runs programs on the emulated device."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._python, self._folder = python, folder
        self.n_runs = 0

    def run(self, name: str, batch: int, left_bytes: int, conf: str = "") -> Run:
        """Run a program of a batch with so much memory for PyTorch, under settings."""
        path = self._folder / f"{name}-{self.n_runs:03}.memscope"
        self.n_runs += 1
        device = ["--gpu", f"{left_bytes + OVERHEAD_BYTES}", "--overhead", f"{OVERHEAD_BYTES}", "--conf", conf]
        command = [str(self._python), "-m", "memscope", "run", "--emulate", *device, "-f", "-o", str(path)]
        ended = subprocess.run(
            [*command, str(PROGRAM), name, "--batch", str(batch)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if not path.exists() or (ended.returncode and "OutOfMemoryError" not in ended.stderr):
            sys.exit(f"{name} did not run: {ended.stderr[-2000:]}")
        return Run(memscope.load(path).devices[0].lifetimes, path)


def least_enough(lifetimes: DeviceLifetimes) -> int:
    """The least memory with which a replay of the program comes to its end, in whole granules."""

    def is_enough(n: int) -> bool:
        options = ReplayOptions(limits=Limits(n * GRANULE_BYTES), measures_fragmentation=False, keeps_usage=False)
        return replay(lifetimes, "caching", options).oom is None

    reserved = lifetimes.usage.reserved_bytes
    assert reserved is not None
    low, high = 0, int(reserved.max()) // GRANULE_BYTES + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high * GRANULE_BYTES


@dataclass(frozen=True)
class Row:
    """One promise, and what became of it; ``holds`` is None where it was not applied."""

    says: str
    did: str
    holds: bool | None


def promises_kept(bench: Bench, name: str, left_bytes: int, failed: Run) -> Iterator[Row]:
    batch, n_served = BATCHES[name], failed.n_served_before_failure
    assert n_served is not None
    device = memscope.load(failed.path).devices[0]
    verdict = judge_oom(device)
    for change in verdict.remedies.found:
        if change.kind == "setting":
            yield setting_kept(bench, name, left_bytes, failed, change.conf or "", f"oom: {change.text}", change)
        elif change.kind == "memory" and change.changed_bytes is not None:
            yield kept(change.text, bench.run(name, batch, left_bytes + change.changed_bytes), n_served)
        elif change.kind == "batch" and change.reduction_frac is not None:
            yield batch_kept(bench, name, left_bytes, n_served, change)
        else:
            yield Row(f"oom: {change.text}", "", None)
    best = tune(device.lifetimes).recommended_conf
    offered = [change.conf for change in verdict.remedies.found if change.kind == "setting"]
    if best is not None and best not in offered:
        yield setting_kept(bench, name, left_bytes, failed, best, f"tune: {best or 'no settings'}", None)


def kept(says: str, again: Run, n_served: int) -> Row:
    n_now = again.n_served_before_failure
    if n_now is None:
        return Row(f"oom: {says}", "ran to its end", True)
    return Row(f"oom: {says}", f"failed {n_now - n_served:,} requests later", n_now > n_served)


def setting_kept(
    bench: Bench, name: str, left_bytes: int, failed: Run, conf: str, says: str, change: Counterfactual | None
) -> Row:
    again = bench.run(name, BATCHES[name], left_bytes, conf)
    n_now, n_served = again.n_served_before_failure, failed.n_served_before_failure
    assert n_served is not None
    end = failed.lifetimes.end_event
    if change is not None and change.fails_again_event is not None:
        end = change.fails_again_event
    # The request itself, and what the recording has after it.
    n_promised = n_served + (failed.n_served(end) - n_served)
    if n_now is None:
        return Row(says, "ran to its end", True)
    return Row(says, f"failed {n_now - n_served:,} requests later", n_now > n_served and n_now >= n_promised)


def batch_kept(bench: Bench, name: str, left_bytes: int, n_served: int, change: Counterfactual) -> Row:
    assert change.reduction_frac is not None
    batch = BATCHES[name]

    def is_served(n: int) -> bool:
        n_now = bench.run(name, n, left_bytes).n_served_before_failure
        return n_now is None or n_now > n_served

    promised = int(batch * (1 - change.reduction_frac))
    if not promised:
        return Row(f"oom: {change.text}", f"of {batch} none is left", None)
    holds = is_served(promised)
    low, high = (promised, batch) if holds else (0, promised)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_served(middle) else (low, middle)
    return Row(f"oom: {change.text} ({promised} of {batch})", f"{low} of {batch} is served", holds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default="2.11.0", help="which torch of .venv-emulated/")
    parser.add_argument("--only", help="programs, separated by commas")
    parser.add_argument("--keep", type=Path, help="a folder to keep the recordings in")
    options = parser.parse_args()
    python = ROOT / ".venv-emulated" / options.version / "bin" / "python"
    if not python.exists():
        print(f"not run: {python.relative_to(ROOT)} is missing (make test-emulated makes it)")
        return
    counts = {True: 0, False: 0, None: 0}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(python, folder)
        for name in options.only.split(",") if options.only else BATCHES:
            ample = bench.run(name, BATCHES[name], AMPLE_BYTES)
            enough = least_enough(ample.lifetimes)
            if bench.run(name, BATCHES[name], enough).n_served_before_failure is not None:
                print(f"{name}: {format_bytes(enough)} were not enough, a replay said they are")
                counts[False] += 1
            for short in SHORT_FRACS:
                left = (int(enough * (1 - short)) // GRANULE_BYTES - 1) * GRANULE_BYTES
                failed = bench.run(name, BATCHES[name], left)
                if failed.n_served_before_failure is None:
                    print(f"{name}: {format_bytes(left)} were enough, a replay said they are not")
                    counts[False] += 1
                    continue
                headline = judge_oom(memscope.load(failed.path).devices[0], searches=False).verdict.words
                print(f"\n{name}, {format_bytes(left)} where {format_bytes(enough)} are enough: {headline}", flush=True)
                for row in promises_kept(bench, name, left, failed):
                    counts[row.holds] += 1
                    mark = {True: "holds", False: "BROKEN", None: "not applied"}[row.holds]
                    print(f"  {mark:<12}{row.says}{': ' if row.did else ''}{row.did}", flush=True)
        print(f"\n{counts[True]} promises hold, {counts[False]} do not, {counts[None]} were not applied")
        print(f"({bench.n_runs} runs of torch {options.version} on the emulated device)")


if __name__ == "__main__":
    main()
