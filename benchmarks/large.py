"""Verbs on a recording of ten million events: seconds and peak memory of each, beside reading its columns alone.

    python benchmarks/large.py [--events 10000000] [--live 100000] [--keep FILE]

The recording is made here by the simulated allocator (a minute or two), with every event that PyTorch would have
noted, so that ``verify`` follows all of it. Every figure is of a process of its own. The peer is pyarrow reading the
same columns from the same file; bytes an event are the peak resident memory of the process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

VERBS = ("report", "peak", "frag", "verify", "replay --strategy caching", "replay")
READ_COLUMNS = (
    "import io, sys, zipfile, pyarrow.parquet as parquet\n"
    "with zipfile.ZipFile(sys.argv[1]) as parts:\n"
    "    for name in parts.namelist():\n"
    "        if name.endswith('.parquet'): parquet.read_table(io.BytesIO(parts.read(name)))\n"
)


def make(path: Path, n_events: int, n_live: int) -> None:
    """Write the recording."""
    from replay import random_program, recorded_trace

    from memscope.trace.container import write_container

    write_container(recorded_trace(random_program(n_events, n_live), n_events), path)


def measure(command: list[str]) -> tuple[float, int, int]:
    """Seconds, peak resident bytes and exit code of a process."""
    # A process of its own between: the peak of the children of this one is the highest of them all.
    script = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode\n"
        "seconds = time.perf_counter() - start\n"
        "print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, code)\n"
    )
    out = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True).stdout
    seconds, peak_bytes, code = out.split()
    return float(seconds), int(peak_bytes), int(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--live", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="where the recording is kept, and taken from if it is there")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.events, options.live)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "large.memscope"
        if not path.exists():
            start = time.perf_counter()
            arguments = ["--events", str(options.events), "--live", str(options.live), "--make", str(path)]
            subprocess.run([sys.executable, __file__, *arguments], check=True)
            print(f"made in {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e6:,.0f} MB", flush=True)
        print(f"\n{'':<34}{'seconds':>9}{'/ read':>9}{'peak MB':>10}{'B an event':>12}")
        read_s, peak_bytes, _ = measure([sys.executable, "-c", READ_COLUMNS, str(path)])
        print(f"{'pyarrow reads the columns':<34}{read_s:>9.2f}{'1.0 ×':>9}{peak_bytes / 1e6:>10,.0f}", flush=True)
        for verb in VERBS:
            name, *rest = verb.split()
            seconds, peak_bytes, code = measure([sys.executable, "-m", "memscope", name, str(path), *rest])
            print(
                f"{verb:<34}{seconds:>9.2f}{seconds / read_s:>7.1f} ×{peak_bytes / 1e6:>10,.0f}"
                f"{peak_bytes / options.events:>12,.0f}{'' if code in (0, 2) else f'   exit code {code}'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
