"""How much memory from before a recording is told, and how often rightly: beside owners that are known.

    python benchmarks/inference.py [--only TEXT] [SNAPSHOT...]

Training and inference programs are recorded in dry runs that know every owner. Then the first part of each recording is
cut off at several places, so that model, optimizer and all else that lives there predate it, as in a recording that was
begun in mid-life; owners and marks go, and with them the stacks that CUDA's autograd threads do not have. *told* is the
share of the bytes with a known owner that was inferred, *sure* of them with a confidence of 0.9 or more; *right* is how
many of them got their category, block by block; *in sums* leaves out which of equal blocks is which, as ledgers do.

The last lines are the calibration: what share is right of what was told with each confidence. Snapshots that are named
are told before and after: the share of the requested bytes at their peak that has a category.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from memscope.analysis import Analysis  # noqa: E402
from memscope.attribution.ledger import coverage_at  # noqa: E402
from memscope.trace.categories import Category, CategorySource  # noqa: E402
from memscope.trace.open import open_trace  # noqa: E402
from tests.attribution.judging import Judged, judge  # noqa: E402
from tests.attribution.midlife import PROGRAMS, record_program  # noqa: E402

CUTS = (0.25, 0.33, 0.42, 0.5, 0.58, 0.67, 0.75, 0.83)
"""Shares of the events that are cut off: within passes, steps and between them."""
SURE = 0.9


def main() -> None:
    """Run the programs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="programs whose name has this text")
    parser.add_argument("snapshots", nargs="*", metavar="SNAPSHOT", help="snapshots to tell before and after")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    told, right = Counter[float](), Counter[float]()
    print(f"{'program':28}{'predates':>10}{'told':>8}{'sure':>8}{'right of sure':>15}{'right':>9}{'in sums':>9}")
    for name in PROGRAMS:
        if options.only not in name:
            continue
        trace = record_program(name)
        judged = [judge(trace, share) for share in CUTS]
        for one in judged:
            for confidence, found in one.confusion.items():
                told[confidence] += int(found.sum())
                right[confidence] += int(np.trace(found))
        _print_line(name, judged)
    for confidence in sorted(told, reverse=True):
        share = f"{right[confidence] / told[confidence]:.3%}" if told[confidence] else ""
        print(f"told with a confidence of {confidence}: {told[confidence] / 2**20:12,.0f} MiB, right {share:>9}")
    for path in options.snapshots:
        _print_snapshot(Path(path))


def _print_line(name: str, judged: list[Judged]) -> None:
    known = sum(one.known_bytes for one in judged)
    told, sure = (sum(one.told_bytes(least) for one in judged) for least in (0.0, SURE))
    right, right_of_sure = (sum(one.right_bytes(least) for one in judged) for least in (0.0, SURE))
    summed = sum(one.summed_bytes() for one in judged)
    print(
        f"{name:28}{known / 2**20:>6.0f} MiB{told / known:>8.1%}{sure / known:>8.1%}"
        f"{_share(right_of_sure, sure):>15}{_share(right, told):>9}{_share(summed, told):>9}",
        flush=True,
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _print_snapshot(path: Path) -> None:
    device = Analysis(open_trace(path)).devices[0]
    event, attribution = device.peak().event, device.attribution
    is_inferred = attribution.source == CategorySource.INFERRED
    before = replace(attribution, category=np.where(is_inferred, Category.UNKNOWN, attribution.category))
    shares = [coverage_at(device.lifetimes, one, event).attributed_frac for one in (before, attribution)]
    print(f"{path.name:44} " + " → ".join("nothing" if share is None else f"{share:.3f}" for share in shares))


if __name__ == "__main__":
    main()
