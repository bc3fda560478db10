"""One rank of many in a dry run: its peak beside what PyTorch's own tracker finds, and what the dry run itself takes.

    python benchmarks/ranks.py [--only llama-3-8b] [--ranks 8,64]

``programs/sharded.py`` trains models of the shapes of Llama-3-8B and 70B with ``fully_shard``, AdamW and checkpointed
blocks, batch 1 x 4096 on each rank of B200s. *tracker* is ``torch.distributed._tools.FSDPMemTracker`` on fake tensors
of the host: it knows neither cuBLAS's workspaces nor what kernels of CUDA take, and the optimizer's step is left to
others. *peak* is the dry run's, without the workspaces. Seconds of CPU, of both, and the most host memory that was
resident, are those of the whole process. The exit code is 1 if a peak is more than 2 % off, or a dry run takes more
than a minute of CPU or 4 GiB.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import memscope  # noqa: E402

PROGRAM = ROOT / "benchmarks" / "programs" / "sharded.py"
SHAPES = ("llama-3-8b", "llama-3-70b")
MAX_OFF_FRAC = 0.02
MAX_CPU_S, MAX_HOST_BYTES = 60.0, 4 << 30
MiB = 1 << 20
HEADING = (
    f"{'':12}{'':6}{'peak':>11}{'tracker':>12}{'':8}{'workspaces':>12}{'wall':>8}{'CPU':>7}{'tracker':>9}{'host':>7}\n"
    f"{'shape':12}{'ranks':>6}{'MiB':>11}{'MiB':>12}{'off':>8}{'MiB':>12}{'s':>8}{'s':>7}{'CPU s':>9}{'MiB':>7}"
)


class Ended(NamedTuple):
    """What a process printed last, and took."""

    last_line: str
    wall_s: float
    cpu_s: float
    host_bytes: int


def run(arguments: list[str], folder: Path) -> Ended:
    """Run Python with arguments to its end."""
    out = folder / "out.txt"
    start = time.perf_counter()
    with out.open("wb") as file:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), 1), (os.POSIX_SPAWN_DUP2, file.fileno(), 2)]
        pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    text = out.read_text(encoding="utf-8").strip()
    if status:
        sys.exit(f"{' '.join(arguments)} failed:\n{text[-2000:]}")
    wall_s = time.perf_counter() - start
    return Ended(text.splitlines()[-1], wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def peak_of(path: Path) -> tuple[int, int]:
    """A recording's peak without the workspaces that there are at it, and they."""
    moment = memscope.load(path).peak()
    workspaces = moment.ledger["workspace"]
    return moment.allocated_bytes - workspaces, workspaces


def row(shape: str, n_ranks: int, folder: Path) -> bool:
    """Print one line; whether all that it says is within its limits."""
    path = folder / "run.memscope"
    options = ["--dry-run", "--gpu", "B200-180GB", "--world-size", str(n_ranks), "--rank", "0", "-f", "-o", str(path)]
    dry = run(["-m", "memscope", "run", *options, str(PROGRAM), shape], folder)
    tracked = run([str(PROGRAM), shape, "--tracker", "--world-size", str(n_ranks)], folder)
    peak_bytes, workspaces = peak_of(folder / "run-rank0.memscope")
    tracker_bytes = int(tracked.last_line)
    off = peak_bytes / tracker_bytes - 1
    sizes = f"{peak_bytes / MiB:11,.1f}{tracker_bytes / MiB:12,.1f}{off:+8.2%}{workspaces / MiB:12,.1f}"
    costs = f"{dry.wall_s:8.1f}{dry.cpu_s:7.1f}{tracked.cpu_s:9.1f}{dry.host_bytes / MiB:7,.0f}"
    print(f"{shape:12}{n_ranks:6}{sizes}{costs}", flush=True)
    return abs(off) <= MAX_OFF_FRAC and dry.cpu_s <= MAX_CPU_S and dry.host_bytes <= MAX_HOST_BYTES


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SHAPES)
    parser.add_argument("--ranks", default="8,64")
    arguments = parser.parse_args()
    print(HEADING)
    is_well = True
    with tempfile.TemporaryDirectory() as folder:
        for shape in SHAPES if arguments.only is None else (arguments.only,):
            for n_ranks in map(int, arguments.ranks.split(",")):
                is_well &= row(shape, n_ranks, Path(folder))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
