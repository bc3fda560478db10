"""A part of a snapshot of a gigabyte: the memory of reading it, beside that of reading the whole.

    python benchmarks/slices.py [--megabytes 1000] [--part 0.01] [--keep FILE]

The snapshot is made here, as PyTorch writes one: requests served by the simulated allocator, with every event, and
stacks of 40 frames that most events have for themselves. Each figure is of a process of its own: the growth of its
peak resident memory over what it had with everything imported. What is compared is ``memscope import``'s reading of the
file, whole and with ``--events``; both parts are then checked to be the same slice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from load import MIB, peak_bytes, synthesize

N_BYTES_AN_EVENT = 190
MOST = 0.10


def measure(path: Path, events: str) -> dict[str, float]:
    """Peak memory over the imports', seconds of processor time and events, measured in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(path), events]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def _measured(path: str, events: str) -> dict[str, float]:
    from memscope.cli.options import load_trace
    from memscope.export.reading import parse_span

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.pickle"
        synthesize(small, 2_000)
        load_trace(small, span=parse_span(None, "500:600"))
        load_trace(small)
    before, start = peak_bytes(), time.process_time()
    analysis = load_trace(Path(path), span=parse_span(None, events or None))
    found = {"seconds": time.process_time() - start, "peak_bytes": peak_bytes() - before}
    analysis.require_consistent()
    trace = analysis.trace
    state = analysis.device().lifetimes.final_difference() if events else None
    if state is not None:
        raise SystemExit(f"the slice contradicts itself: {state}")
    return found | {"n_events": trace.n_events, "n_blocks": len(trace.blocks)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1_000, help="size of the snapshot")
    parser.add_argument("--part", type=float, default=0.01, help="share of the events that is wanted")
    parser.add_argument("--keep", type=Path, help="where the snapshot is kept, and taken from if it is there")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measured(*options.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "synthetic.pickle"
        if not path.exists():
            synthesize(path, int(options.megabytes * 1e6 / N_BYTES_AN_EVENT))
        whole = measure(path, "")
        n = int(whole["n_events"])
        print(f"{path.stat().st_size / 1e6:,.0f} MB, {n:,} events", flush=True)
        print(f"the whole          {whole['peak_bytes'] / MIB:8,.0f} MiB {whole['seconds']:7.1f} s", flush=True)
        is_good = True
        for name, at in (("begin", 0.0), ("middle", 0.5), ("end", 1.0 - options.part)):
            first = max(1, int(at * n))
            last = min(n - 1, first + int(options.part * n))
            part = measure(path, f"{first}:{last}")
            ratio = part["peak_bytes"] / whole["peak_bytes"]
            is_good &= ratio < MOST
            print(
                f"{options.part:.1%} at the {name:<8}{part['peak_bytes'] / MIB:7,.0f} MiB {part['seconds']:7.1f} s   "
                f"{ratio:.1%} of the memory, {part['seconds'] / whole['seconds']:.2f} × the time",
                flush=True,
            )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
