"""How much of a peak is told from stacks alone: this project's rules beside PyTorch's MemTracker.

    python benchmarks/attribution.py [--only TEXT]

Small training and generation programs are recorded in dry runs that know every owner by identity. Then owners, tags,
steps and phases are taken away and the rules classify each peak again: once with every stack, once with the stacks that
CUDA's autograd threads have. *right* is the share of the bytes with a known owner that got their category; *untold* are
bytes at the peak that identity itself does not know (outputs, and what a cache keeps in training): they count for
neither.

MemTracker (``torch.distributed._tools.mem_tracker``) follows the same programs on real tensors of the host, and is told
of the model and the optimizer. It gives sums and no allocations, so *overlap* is the most that can be right of sums:
over the categories, the smaller of the bytes found and the true ones, by the true ones. Library workspaces, which it
cannot see, are left out on both sides; it has no category for caches and inputs. Its peak is its own, of the size that
follows: the host's kernels save other tensors than a GPU's.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from memscope.trace.categories import Category  # noqa: E402
from tests.attribution import workloads  # noqa: E402
from tests.attribution.from_stacks import N_CATEGORIES, Verdict, classify_peak  # noqa: E402

TRACKED = {
    "Parameter": Category.WEIGHTS,
    "Buffer": Category.WEIGHTS,
    "Gradient": Category.GRADIENTS,
    "Activation": Category.ACTIVATIONS,
    "Temp": Category.TEMPORARIES,
    "Optstate": Category.OPTIMIZER_STATE,
    "Other": Category.INPUTS,
}
UNSEEN = (Category.WORKSPACE,)


def tracked_bytes(workload: workloads.Workload) -> np.ndarray | str:
    """MemTracker's bytes at its peak by category, int64 (categories,); or in words why there are none."""
    from torch.distributed._tools.mem_tracker import MemTracker

    torch.manual_seed(0)
    tracker = MemTracker()
    try:
        with workloads.on_host(), ExitStack() as entered:
            workload.run(_Told(tracker, entered))
    except (RuntimeError, AttributeError, TypeError, ValueError, KeyError, AssertionError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    found = np.zeros(N_CATEGORIES, np.int64)
    for kinds in tracker.get_tracker_snapshot("peak").values():
        for kind, n_bytes in kinds.items():
            category = TRACKED.get(str(getattr(kind, "value", kind)))
            if category is not None:
                found[category] += int(n_bytes)
    return found


class _Told(workloads.Watcher):
    """Uses MemTracker as its documentation does: told of the model and the optimizer, and then entered.

    It refuses a second pass without a reset.
    """

    def __init__(self, tracker: Any, entered: ExitStack) -> None:
        self._tracker = tracker
        self._entered = entered

    def know(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Track both from now on; without an optimizer every pass stands alone."""
        self._tracker.track_external(*(known for known in (model, optimizer) if known is not None))
        if optimizer is None:
            model.register_forward_hook(lambda *_: self.step())
        self._entered.enter_context(self._tracker)

    def step(self) -> None:
        """Allow another pass."""
        self._tracker.reset_mod_stats()


def overlap_frac(found: np.ndarray, true: np.ndarray) -> float:
    """The most that can be right of sums by category."""
    seen = np.array([category not in UNSEEN for category in Category])
    return float(np.minimum(found, true)[seen].sum()) / float(true[seen].sum())


def print_confusion(total: np.ndarray) -> None:
    """True categories down, found ones across, in KiB."""
    names = [category.label for category in Category]
    print(f"\nbytes at the peaks of all programs, KiB; true down, found across (as on CUDA)\n{'':16}", end="")
    print("".join(f"{name[:11]:>12}" for name in names))
    for i, name in enumerate(names):
        if total[i].any():
            print(f"{name:16}" + "".join(f"{n / 1024:12,.0f}" if n else f"{'·':>12}" for n in total[i]))


def main() -> None:
    """Run the programs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="programs whose name has this text")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    total = np.zeros((N_CATEGORIES, N_CATEGORIES), np.int64)
    print(
        f"{'program':24}{'peak':>10}{'untold':>9}{'right':>9}{'as on CUDA':>12}{'overlap':>10}   MemTracker's overlap"
    )
    for name, workload in workloads.WORKLOADS.items():
        if only not in name:
            continue
        trace = workloads.record_workload(name)
        whole, verdict = classify_peak(trace, as_on_cuda=False), classify_peak(trace, as_on_cuda=True)
        total += verdict.confusion
        _print_line(name, whole, verdict, tracked_bytes(workload))
    print(f"{'all':52}{float(np.trace(total)) / float(total.sum()):>12.2%}")
    print_confusion(total)


def _print_line(name: str, whole: Verdict, verdict: Verdict, tracked: np.ndarray | str) -> None:
    true = verdict.confusion.sum(axis=1)
    own = overlap_frac(verdict.confusion.sum(axis=0), true)
    peer = (
        tracked if isinstance(tracked, str) else f"{overlap_frac(tracked, true):.2%} of {tracked.sum() / 2**20:.1f} MiB"
    )
    size = f"{true.sum() / 2**20:.1f} MiB"
    untold = f"{verdict.untold_bytes / (verdict.untold_bytes + true.sum()):.1%}"
    print(
        f"{name:24}{size:>10}{untold:>9}{whole.right_frac:>9.2%}{verdict.right_frac:>12.2%}{own:>10.2%}   {peer}",
        flush=True,
    )


if __name__ == "__main__":
    main()
