"""How far a dry run's peaks are from those of the real allocator under real CUDA code, program by program.

    python benchmarks/predictions.py [--version 2.11.0] [--only TEXT,…] [--gpu A100-80GB] [--folder FOLDER]

Each program is run twice on the same CUDA build of PyTorch, in ``.venv-emulated/`` (``make test-emulated`` makes it):
as a dry run, and on the emulated device, where PyTorch's own code makes every request. Where transformers ask for
values of masks and positions, both are told what a GPU would say. *allocated* and *reserved* are the dry run's peaks by
the emulated device's, of the device that is worst. Where the first is more than 1 % or the second more than 2 % off,
the line below names the first request that one of them has and the other has not.

The programs are those of ``programs/kernels.py``, the ones that categories are told from (``tests/attribution``), and
those of a folder with a list ``RUNS`` (``name|script and arguments``), if ``--folder`` is given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import memscope  # noqa: E402
from memscope.device.device import Device  # noqa: E402
from memscope.trace.schema import Action  # noqa: E402

PROGRAMS = ROOT / "benchmarks" / "programs"
WAYS = ("dry-run", "emulated")
MAX_OFF = (0.01, 0.02)
"""How far allocated and reserved may be from the emulated device's."""
KERNELS = (
    *(f"attention {kind}" for kind in ("math causal 64 bfloat16", "math bool 64 bfloat16", "math float 64 float32")),
    *(f"attention {kind}" for kind in ("efficient causal 64 bfloat16", "efficient bool 80 float16")),
    *(
        f"attention {kind}"
        for kind in ("flash causal 64 bfloat16", "flash none 128 float16 0.0", "any none 72 float32")
    ),
    *(f"attention {kind}" for kind in ("any bool 100 bfloat16", "any causal 256 bfloat16 0.0", "any float 64 float32")),
    *("grouped_attention", "multihead float32", "multihead bfloat16", "transformer train", "transformer evaluate"),
    *("recurrent LSTM", "recurrent LSTM 1 both bfloat16", "recurrent GRU", "recurrent GRU 2 both", "recurrent RNN"),
    *("packed_recurrent", "cells", "embedding plain", "embedding padded", "embedding scaled", "embedding sparse"),
    *("embedding half", "embedding sum", "embedding mean", "embedding max", "sorting 64 100000", "sorting 4096 1000"),
    *("sorting 1 5000000", "sampling", "reductions float32", "reductions bfloat16", "perceptron float32"),
    *("perceptron bfloat16", "norms float32", "norms bfloat16", "convolutions 2d", "convolutions 1d"),
    *("convolutions 3d", "convolutions transposed", "convolutions depthwise", "convolutions grouped"),
    *("convolutions grouped-twice",),
    *("convolutions dilated", "picking", "losses", "experts", "images", "optimizers Adam", "optimizers Adagrad"),
    *("optimizers RMSprop", "optimizers Adadelta", "optimizers NAdam", "optimizers Adafactor", "autocast float16"),
    *("autocast bfloat16", "streams", "two_devices"),
)


@dataclass(frozen=True)
class Program:
    """A script with its arguments."""

    name: str
    script: Path
    arguments: tuple[str, ...]


def programs(folder: Path | None) -> Iterator[Program]:
    """All programs, those of a folder first."""
    if folder is not None:
        for line in (folder / "RUNS").read_text(encoding="utf-8").splitlines():
            name, bar, command = line.partition("|")
            if bar and not line.startswith("#"):
                script, *arguments = command.split()
                yield Program(name, folder.resolve() / script, tuple(arguments))
    for command in KERNELS:
        yield Program(command, PROGRAMS / "kernels.py", tuple(command.split()))
    from tests.attribution.workloads import WORKLOADS

    for name in WORKLOADS:
        yield Program(name, ROOT / "tests" / "emulated" / "programs" / "attribution_workload.py", (name,))


class Bench:
    """Runs programs both ways on one PyTorch."""

    def __init__(self, python: Path, gpu: str, folder: Path) -> None:
        self._python, self._gpu, self._folder = python, gpu, folder
        self._libraries = self._stand_ins()

    def run(self, program: Program, way: str) -> Path | str:
        """The recording's file; where there is none, why."""
        path = self._folder / f"{program.name.replace(' ', '-').replace(',', '')}-{way}.memscope"
        path.unlink(missing_ok=True)
        options = [{"dry-run": "--dry-run", "emulated": "--emulate"}[way], "--devices", "2"]
        command = [str(self._python), "-m", "memscope", "run", *options, "--gpu", self._gpu, "-f", "-o", str(path)]
        variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(PROGRAMS)]), "FID_REAL": "1"}
        if way == "dry-run":
            variables |= {"LD_PRELOAD": self._libraries, "CUDA_VISIBLE_DEVICES": ""}
        ended = subprocess.run(
            [*command, str(program.script), *program.arguments],
            cwd=program.script.parent,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode or not path.exists():
            return (ended.stderr.strip().splitlines() or ["no word"])[-1][:160]
        return path

    def _stand_ins(self) -> str:
        """What a CUDA build without NVIDIA's libraries needs to be imported: a dry run makes no use of it."""
        text = (
            "from memscope.emulation.build import build_libraries; from memscope.emulation.torch_build import "
            "find_torch_build; print(build_libraries(find_torch_build(), lambda _: None) / 'preload.txt')"
        )
        found = subprocess.run([self._python, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return ":".join(Path(found.strip()).read_text(encoding="utf-8").split("\n")[:-1])


@dataclass(frozen=True)
class Row:
    """What became of a program: the two ratios, and in words why they are off; or why there are none."""

    program: Program
    ratios: tuple[float, float] | None
    peaks: tuple[int, int]
    why: str

    @property
    def is_off(self) -> bool:
        """Whether it is further off than it may be."""
        return self.ratios is None or any(abs(r - 1) > most for r, most in zip(self.ratios, MAX_OFF, strict=True))

    def cells(self) -> list[str]:
        """Name, ratios and the emulated device's peaks."""
        ratios = ["–", "–"] if self.ratios is None else [f"{ratio:.3f}" for ratio in self.ratios]
        return [self.program.name, *ratios, *(f"{peak / 2**20:,.1f}" for peak in self.peaks)]


def compare(program: Program, bench: Bench) -> Row:
    """Run a program both ways."""
    found = [bench.run(program, way) for way in WAYS]
    for way, path in zip(WAYS, found, strict=True):
        if isinstance(path, str):
            return Row(program, None, (0, 0), f"{way}: {path}")
    dry, emulated = ({device.index: device for device in memscope.load(path).devices} for path in found)
    worst: Row | None = None
    for index, real in emulated.items():
        peaks = _peaks(real)
        if not peaks[1]:
            continue  # a device that nothing is on
        if index not in dry:
            return Row(program, (0.0, 0.0), peaks, f"the dry run has no device {index}")
        ratios = tuple(mine / max(theirs, 1) for mine, theirs in zip(_peaks(dry[index]), peaks, strict=True))
        row = Row(program, (ratios[0], ratios[1]), peaks, "")
        if worst is None or max(abs(r - 1) for r in ratios) > max(abs(r - 1) for r in worst.ratios or ()):
            worst = Row(program, row.ratios, peaks, first_difference(dry[index], real) if row.is_off else "")
    assert worst is not None
    return worst


def _peaks(device: Device) -> tuple[int, int]:
    reserved = device.peak_reserved().reserved_bytes
    return device.peak().allocated_bytes, 0 if reserved is None else reserved


def first_difference(dry: Device, emulated: Device) -> str:
    """The first large request that one has more often than the other, and who made it."""
    sides = [_requests(device) for device in (dry, emulated)]
    first: tuple[int, str] | None = None
    for (sizes, events), (others, _), device, way in zip(sides, sides[::-1], (dry, emulated), WAYS, strict=True):
        left = _counts(others)
        least = max(sizes.max(initial=0) // 100, 1)
        for at, (size, event) in enumerate(zip(sizes.tolist(), events.tolist(), strict=True)):
            left[size] = left.get(size, 0) - 1
            if left[size] < 0 and size >= least:
                if first is None or at < first[0]:
                    first = at, f"only {way} has a request of {size:,} bytes ({_who(device, event)})"
                break
    return first[1] if first is not None else "the same requests in another order"


def _requests(device: Device) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of all requests, and their events; int64 both."""
    trace = device.trace
    start, end = trace.event_range(device.index)
    events = start + np.flatnonzero(trace.action[start:end] == Action.ALLOC)
    return trace.size_bytes[events], events


def _counts(sizes: np.ndarray) -> dict[int, int]:
    return dict(zip(*(column.tolist() for column in np.unique(sizes, return_counts=True)), strict=True))


def _who(device: Device, event: int) -> str:
    """The lines nearest to the request that are Python's, innermost first."""
    frames = [
        f"{Path(f.filename).name}:{f.line}"
        for f in device.trace.stack(int(device.trace.stack_id[event]))
        if f.filename.endswith(".py")
    ]
    return " < ".join(frames[:3]) or "no Python"


def print_row(row: Row) -> None:
    """A line, and what is to be said of it below."""
    name, *numbers = row.cells()
    print(f"{name:36}" + "".join(f"{number:>12}" for number in numbers), flush=True)
    if row.why:
        print(f"    {row.why}", flush=True)


def markdown(rows: Sequence[Row], gpu: str, version: str) -> str:
    """The table of ``docs/peaks.md``."""
    lines = [
        f"# Predicted peaks beside those of real CUDA code, on an emulated {gpu}",
        "",
        f"Made by `benchmarks/predictions.py` with torch {version}: the dry run's peaks by those of the emulated",
        "device, where PyTorch's own CUDA code makes every request; in MiB, the latter's. No real GPU was at hand.",
        "",
        "| program | allocated | reserved | peak allocated | peak reserved |",
        "|---|--:|--:|--:|--:|",
        *(f"| {' | '.join(row.cells())} |" for row in rows),
        "",
    ]
    notes = [f"- {row.program.name}: {row.why}" for row in rows if row.why]
    return "\n".join([*lines, *(["More than 1 % or 2 % off:", "", *notes, ""] if notes else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default="2.11.0", help="which torch of .venv-emulated/")
    parser.add_argument("--python", type=Path, help="the Python with that torch, where it is elsewhere")
    parser.add_argument("--gpu", default="A100-80GB")
    parser.add_argument("--only", default="", help="programs whose name has one of these texts, separated by commas")
    parser.add_argument("--folder", type=Path, help="a folder with programs and their list")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--keep", type=Path, help="a folder to keep the recordings in")
    options = parser.parse_args()
    python = options.python or ROOT / ".venv-emulated" / options.version / "bin" / "python"
    if not python.exists():
        print(f"not run: {python} is missing (make test-emulated makes it)")
        return
    print(f"{'program':36}{'allocated':>12}{'reserved':>12}{'MiB':>12}{'MiB':>12}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(python, options.gpu, options.keep or Path(temporary))
        for program in programs(options.folder):
            if any(text in program.name for text in options.only.split(",")):
                rows.append(compare(program, bench))
                print_row(rows[-1])
                if options.markdown is not None:
                    options.markdown.write_text(markdown(rows, options.gpu, options.version), encoding="utf-8")
    print(f"\n{sum(not row.is_off for row in rows)} of {len(rows)} within 1 % allocated and 2 % reserved")


if __name__ == "__main__":
    main()
