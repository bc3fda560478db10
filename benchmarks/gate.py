"""How often ``check`` cries wolf, and how often it finds 2 % more: dry runs of a small transformer, no GPU needed.

    python benchmarks/gate.py [--runs 200] [--baselines 5] [--jobs 2]

Each run trains with batches of its own, drawn with its own seed, in two ways: sequences of log-normal lengths, cut to
128 tokens, each batch padded to its longest, as trainings do it that have a longest length; and every batch of one of
five lengths, few batches in a run, so that many a run never has the longest. A run is held against a baseline of
others, by the default tolerance: every alarm is a false one. Then the same run is recorded with 2 % of the baseline's
peak more, which must be found. The runs are dealt to several baselines, so that the figures are not those of a lucky
one. What is wanted, less than 1 % false alarms and more than 95 % found, is asked of the first; in the second the peaks
of a program's own runs lie further apart than 2 %, and the size of their inputs has to tell a longer batch from a
change.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compare import Program, record

from memscope.compare.baseline import Baseline, baseline_of
from memscope.compare.checks import Check
from memscope.compare.gate import run_check

N_BASELINE, N_STEPS, N_SEQUENCES = 5, 8, 32
BUCKETS = range(96, 136, 8)
MEDIAN_LENGTH, SPREAD, MULTIPLE, LONGEST = 48, 0.5, 8, 128
WANTED = f"cut to {LONGEST}"


@dataclass(frozen=True)
class Outcome:
    """Whether a run was refused, and the same run with 2 % more."""

    is_false_alarm: bool
    is_found: bool


def bucketed(rng: random.Random) -> int:
    """The length of a batch, one of five."""
    return rng.choice(BUCKETS)


def padded(rng: random.Random) -> int:
    """The length of a batch that is padded to the longest of its sequences, which are cut."""
    longest = MEDIAN_LENGTH * max(rng.lognormvariate(0, SPREAD) for _ in range(N_SEQUENCES))
    return min(math.ceil(longest / MULTIPLE) * MULTIPLE, LONGEST)


LENGTHS = {WANTED: padded, "of five lengths": bucketed}


def program_of(seed: int, lengths: str) -> Program:
    """A training run."""
    rng = random.Random(seed)
    return Program(lengths=tuple(LENGTHS[lengths](rng) for _ in range(N_STEPS)), batch=N_SEQUENCES, n_layers=1)


def make_baseline(seed: int, lengths: str) -> Baseline:
    """The baseline of some runs that are none of those that are judged."""
    return baseline_of([record(program_of(seed + i, lengths)) for i in range(N_BASELINE)])


def judge(seed: int, lengths: str, baseline: Baseline) -> Outcome:
    """One run against a baseline, and the same with 2 % more."""
    check, program = Check("run", Path("run"), baseline=Path("baseline")), program_of(seed, lengths)
    extra_bytes = baseline.peak_allocated.median_bytes * 2 // 100
    runs = (program, replace(program, extra_bytes=extra_bytes))
    return Outcome(*(run_check(check, record(run), baseline).is_exceeded for run in runs))


def noise_of(baseline: Baseline) -> float:
    """How far the peaks of its runs lie apart."""
    return baseline.peak_allocated.noise_bytes / baseline.peak_allocated.median_bytes


def try_gate(
    n_runs: int, n_baselines: int, lengths: str, workers: ProcessPoolExecutor
) -> tuple[list[Outcome], list[Baseline]]:
    """So many runs, dealt to the baselines in turns."""
    seeds = [1_000_000 + N_BASELINE * i for i in range(n_baselines)]
    baselines = list(workers.map(make_baseline, seeds, [lengths] * n_baselines))
    dealt = [baselines[i % n_baselines] for i in range(n_runs)]
    return list(workers.map(judge, range(n_runs), [lengths] * n_runs, dealt)), baselines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="runs that the gate is tried on")
    parser.add_argument("--baselines", type=int, default=5, help=f"baselines, of {N_BASELINE} runs each")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    # Forked after torch was imported: a run takes a fraction of a second, importing torch several.
    is_good, context = True, multiprocessing.get_context("fork")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as workers:
        for lengths in LENGTHS:
            start = time.perf_counter()
            outcomes, baselines = try_gate(options.runs, options.baselines, lengths, workers)
            n = len(outcomes)
            alarms = sum(one.is_false_alarm for one in outcomes) / n
            found = sum(one.is_found for one in outcomes) / n
            noises = ", ".join(f"{noise_of(one):.1%}" for one in baselines)
            print(
                f"batches {lengths}: {alarms:.1%} false alarms, +2 % found in {found:.1%} of {n} runs; peaks of the "
                f"baselines' runs {noises} apart; {time.perf_counter() - start:.0f} s",
                flush=True,
            )
            is_good &= lengths != WANTED or (alarms < 0.01 and found > 0.95)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
