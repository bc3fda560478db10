"""What techniques are predicted to make of a program, beside programs that were truly changed so.

    python benchmarks/whatif.py [--only TEXT,…] [--markdown FILE] [--gpu A100-80GB]

Each program of ``programs/techniques.py`` is dry-run as it is; ``memscope whatif`` transforms that trace, and the
program is dry-run again, truly changed. *allocated* and *reserved* are the predicted peaks by the changed program's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "programs")]

import sharding  # noqa: E402
import techniques  # noqa: E402

from memscope.analysis import Analysis  # noqa: E402
from memscope.capture.dry_run.recording import DryRun  # noqa: E402
from memscope.device.device import Device  # noqa: E402
from memscope.gpus import find_gpu  # noqa: E402
from memscope.techniques.whatif import Peaks, what_if  # noqa: E402
from memscope.trace.trace import Trace  # noqa: E402

MAX_OFF = 0.03
TRAINED = ("gpt2", "llama", "mlp", "lora")
STEPPED = ("gpt2-small", "llama-small", "mlp-small")
GENERATED = ("gpt2-generate", "llama-generate")
TEXT = ("gpt2", "llama", "lora")
CASES: dict[str, tuple[str, ...]] = {
    "checkpoint:every=1": TRAINED,
    "checkpoint:every=2": TRAINED,
    "micro-batch:2": TRAINED,
    "micro-batch:4": TRAINED,
    "logits:chunked": TEXT,
    "optimizer:sgd": TRAINED,
    "optimizer:fused": (*TRAINED, *STEPPED),
    "optimizer:foreach-off": (*TRAINED, *STEPPED),
    "optimizer:adafactor": (*TRAINED, *STEPPED),
    "optimizer:8bit": (*TRAINED, *STEPPED),
    "optimizer:paged": TRAINED,
    "offload:optimizer": TRAINED,
    "offload:activations": (*TRAINED, *STEPPED),
    "set-to-none": TRAINED,
    "quantize:int8": GENERATED,
    "quantize:int4": GENERATED,
    "quantize:nf4": GENERATED,
    "quantize:fp8": GENERATED,
    "kv:fp8": GENERATED,
    "kv:int8": GENERATED,
    "kv:int4": GENERATED,
    "static-kv": GENERATED,
    "zero:1:ranks=4": (*TRAINED, *STEPPED),
    "zero:2:ranks=4": (*TRAINED, *STEPPED),
    "zero:3:ranks=4": ("gpt2", "llama"),
    "fsdp2:ranks=4": (*TRAINED, *STEPPED),
    "fsdp2:ranks=3": ("gpt2", "llama"),
    "empty-cache:each-step": TRAINED,
    "conf:expandable_segments:True": TRAINED,
    "conf:max_split_size_mb:64": TRAINED,
    "conf:roundup_power2_divisions:4": TRAINED,
}
STARTS = {"set-to-none": "zeroed"}
"""Techniques that are in force already need a program in which they are not."""


@dataclass(frozen=True)
class Row:
    """One technique on one program."""

    technique: str
    program: str
    before: Peaks
    predicted: Peaks
    truth: Peaks

    @property
    def ratios(self) -> tuple[float, float]:
        """Predicted by true, allocated and reserved."""
        return (
            self.predicted.allocated_bytes / self.truth.allocated_bytes,
            self.predicted.reserved_bytes / self.truth.reserved_bytes,
        )

    @property
    def is_off(self) -> bool:
        """Whether it is further off than it may be."""
        return any(abs(ratio - 1) > MAX_OFF for ratio in self.ratios)

    def cells(self) -> list[str]:
        """Technique, program, what the change truly saves, and the ratios."""
        saved = (self.before.allocated_bytes - self.truth.allocated_bytes) / self.before.allocated_bytes
        peaks = (self.truth.allocated_bytes, self.truth.reserved_bytes)
        numbers = [f"{peak / 2**20:,.1f}" for peak in peaks]
        return [self.technique, self.program, f"{saved:.1%}", *numbers, *(f"{ratio:.4f}" for ratio in self.ratios)]


class Bench:
    """Dry runs of programs, each made once."""

    def __init__(self, gpu: str) -> None:
        self._gpu = find_gpu(gpu)
        self._made: dict[tuple[str, str], Device] = {}

    def device(self, program: str, change: str = "") -> Device:
        """The device that a program was dry-run on."""
        key = program, change
        if key not in self._made:
            conf = change.partition(":")[2] if change.startswith("conf:") else ""
            if change.startswith(sharding.SHARDS):
                with sharding.as_first_rank(sharding.n_ranks_of(change)):
                    trace = dry_run(lambda: sharding.run(program, change), self._gpu)
            else:
                trace = dry_run(lambda: techniques.run(program, change), self._gpu, conf)
            self._made[key] = Analysis(trace).devices[0]
        return self._made[key]

    def row(self, technique: str, program: str) -> Row:
        """A technique on a program."""
        start = self.device(program, STARTS.get(technique, ""))
        found = what_if(start, [technique])
        truth = self.device(program, "" if technique in STARTS else technique)
        return Row(technique, program, found.baseline, found.results[0].peaks, _peaks(truth))


def dry_run(work: Callable[[], object], gpu: object, conf: str = "") -> Trace:
    """The trace of a function's dry run."""
    run = DryRun(gpu, conf, has_stacks=False)  # type: ignore[arg-type]
    run.start()
    try:
        kept = work()
    finally:
        run.stop()
    del kept
    assert run.trace is not None
    return run.trace


def _peaks(device: Device) -> Peaks:
    return Peaks(device.peak().allocated_bytes, device.peak_reserved().reserved_bytes or 0)


def rows(only: Sequence[str], gpu: str) -> Iterator[Row]:
    """Every case whose technique or program has one of some texts in its name."""
    bench = Bench(gpu)
    for technique, programs in CASES.items():
        for program in programs:
            if any(text in f"{technique} {program}" for text in only):
                yield bench.row(technique, program)


HEADS = ("technique", "program", "saves", "allocated MiB", "reserved MiB", "allocated", "reserved")


def markdown(found: Sequence[Row]) -> str:
    """The table of ``docs/techniques.md``."""
    lines = [f"| {' | '.join(HEADS)} |", "|---|---|--:|--:|--:|--:|--:|"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in found), "", summary(found), ""])


def summary(found: Sequence[Row]) -> str:
    """How many are within bounds, and the medians."""
    n_within = sum(not row.is_off for row in found)
    off = [[abs(row.ratios[i] - 1) for row in found] for i in range(2)]
    medians = " and ".join(f"{statistics.median(each):.2%}" for each in off)
    n_techniques = len({row.technique for row in found})
    return (
        f"{n_within} of {len(found)} rows of {n_techniques} techniques within 3 %; medians {medians} "
        "(allocated, reserved)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="techniques or programs with one of these texts, by commas")
    parser.add_argument("--gpu", default="A100-80GB")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = []
    for row in rows(options.only.split(","), options.gpu):
        found.append(row)
        name, program, *numbers = row.cells()
        mark = "  off" if row.is_off else ""
        print(f"{name:34}{program:16}" + "".join(f"{number:>11}" for number in numbers) + mark, flush=True)
    print(summary(found))
    if options.markdown is not None:
        options.markdown.write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
