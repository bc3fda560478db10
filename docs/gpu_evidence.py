"""Record the examples on a GPU, on the emulated device and as dry runs, and set their peaks side by side.

Run from the project's root, with a CUDA build of PyTorch and transformers installed::

    python docs/gpu_evidence.py [--ways real,emulated,dry-run] [--gpu H100-80GB] [--output out/evidence]

Writes a trace of every run and ``peaks.md``, a table. Without a GPU, ``--ways emulated,dry-run`` compares the other two
for the device that ``--gpu`` names; ``--dry-run-python`` is then a Python whose torch can be imported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import memscope
from memscope.gpus import GpuModel, find_gpu, gpu_names
from memscope.units import format_bytes

ROOT = Path(__file__).resolve().parents[1]
EXPANDABLE = "expandable_segments:True"
LARGE = ("--hidden", "2048", "--intermediate", "5632", "--layers", "16", "--heads", "16", "--kv-heads", "4")
SMALL = ("--hidden", "512", "--intermediate", "1408", "--layers", "4", "--heads", "8", "--kv-heads", "4")
TOO_LARGE = ("--layers", "48", "--hidden", "8192", "--heads", "64")
WAYS = ("real", "emulated", "dry-run")


@dataclass(frozen=True)
class Workload:
    """An example with its arguments; ``fails`` where it is to run out of memory."""

    name: str
    script: str
    arguments: tuple[str, ...]
    conf: str = ""
    fails: bool = False


WORKLOADS = (
    Workload("train-small", "train_llama.py", (*SMALL, "--vocab", "32000", "--batch", "4", "--seq", "512")),
    Workload("train-large", "train_llama.py", (*LARGE, "--vocab", "32000", "--batch", "4", "--seq", "1024")),
    Workload("train-large-expandable", "train_llama.py", (*LARGE, "--vocab", "32000", "--batch", "4"), EXPANDABLE),
    Workload("generate-small", "generate_gpt2.py", ("--new-tokens", "64")),
    Workload("generate-large", "generate_gpt2.py", ("--layers", "24", "--hidden", "1600", "--heads", "25")),
    Workload("out-of-memory", "train_llama.py", TOO_LARGE, fails=True),
)


def main() -> None:
    """Record, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--gpu", help=f"the device to stand in for, where none is real: {', '.join(gpu_names())}")
    parser.add_argument("--dry-run-python", default=sys.executable, help="the Python that dry runs are made with")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "evidence")
    arguments = parser.parse_args()
    ways = arguments.ways.split(",")
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        parser.error(f"{unknown[0]!r} is not a way: choose among {', '.join(WAYS)}")
    gpu, device_options = _real_gpu() if "real" in ways else _named_gpu(arguments.gpu)
    python = dict.fromkeys(WAYS, sys.executable) | {"dry-run": arguments.dry_run_python}
    arguments.output.mkdir(parents=True, exist_ok=True)
    traces = {
        (workload.name, way): _record(workload, way, device_options, arguments.output, python[way])
        for workload in WORKLOADS
        for way in ways
    }
    table = peaks_table(WORKLOADS, ways, traces, gpu)
    (arguments.output / "peaks.md").write_text(table, encoding="utf-8")
    print(table)  # noqa: T201


def _named_gpu(name: str | None) -> tuple[str, tuple[str, ...]]:
    gpu = find_gpu(name or "H100-80GB")
    return gpu.device_name, ("--gpu", gpu.name)


def _real_gpu() -> tuple[str, tuple[str, ...]]:
    """The device's name, and the options with which the other ways stand in for it."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("docs/gpu_evidence.py: there is no GPU here; --ways emulated,dry-run compares the other two")
    properties = torch.cuda.get_device_properties(0)
    known = next((find_gpu(name) for name in gpu_names() if find_gpu(name).device_name == properties.name), None)
    return properties.name, ("--gpu", _option_of(known, properties.total_memory))


def _option_of(known: GpuModel | None, total_bytes: int) -> str:
    """A name of the catalogue where its size is the device's own, else the size."""
    return known.name if known is not None and known.total_bytes == total_bytes else str(total_bytes)


def _record(workload: Workload, way: str, device_options: Sequence[str], folder: Path, python: str) -> Path:
    """Record one workload in one way; the trace's file."""
    path = folder / f"{workload.name}-{way}.memscope"
    options = {"real": (), "emulated": ("--emulate", *device_options), "dry-run": ("--dry-run", *device_options)}[way]
    conf = ("--conf", workload.conf) if workload.conf and way != "real" else ()
    variables = {"PYTORCH_CUDA_ALLOC_CONF": workload.conf} if workload.conf else {}
    ended = subprocess.run(  # noqa: S603
        [
            *(python, "-m", "memscope", "run", "--no-stacks", "-f", "-o", str(path), *options, *conf),
            *(str(ROOT / "examples" / workload.script), *workload.arguments),
        ],
        env={**_environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if (ended.returncode != 0) != workload.fails or not path.exists():
        sys.exit(f"docs/gpu_evidence.py: {workload.name} ({way}) ended with {ended.returncode}:\n{ended.stderr}")
    return path


def _environment() -> dict[str, str]:
    """The environment without settings of the allocator."""
    return {name: value for name, value in os.environ.items() if not name.endswith("ALLOC_CONF")}


def peaks_table(
    workloads: Sequence[Workload], ways: Sequence[str], traces: dict[tuple[str, str], Path], gpu: str
) -> str:
    """Peak allocated and reserved bytes of each workload in each way, and the difference to the first way: Markdown."""
    lines = [
        f"# Peaks of the examples on {gpu}: {', '.join(ways)}",
        "",
        "Made by `docs/gpu_evidence.py`. Bytes; in brackets, the difference to the first of each workload.",
        "",
        "| workload | way | peak allocated | peak reserved | out of memory |",
        "|---|---|--:|--:|---|",
    ]
    for workload in workloads:
        first: tuple[int, int] | None = None
        for way in ways:
            analysis = memscope.load(traces[workload.name, way])
            reserved = analysis.peak_reserved().reserved_bytes
            peaks = analysis.peak().allocated_bytes, 0 if reserved is None else reserved
            first = peaks if first is None else first
            shown = [_beside(peak, base) for peak, base in zip(peaks, first, strict=True)]
            ooms = analysis.device().oom_events
            asked = format_bytes(int(analysis.trace.size_bytes[ooms[0]])) if len(ooms) else "no"
            lines.append(f"| {workload.name} | {way} | {shown[0]} | {shown[1]} | {asked} |")
    return "\n".join([*lines, ""])


def _beside(peak: int, first: int) -> str:
    return f"{peak:,}" if peak == first else f"{peak:,} ({peak - first:+,})"


if __name__ == "__main__":
    main()
