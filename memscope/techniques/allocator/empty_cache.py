"""``empty-cache:each-step``: unused segments given back to the driver after each step.

Puts ``torch.cuda.empty_cache()`` at the end of each step, after what is let go of there (gradients). Peak allocated
stays as it is, but for blocks that were left whole because the rest was too small to split off.
Costs driver calls: what the next step needs is asked for anew. Source: ``DeviceCachingAllocator::emptyCache``.
"""

from __future__ import annotations

import numpy as np

from memscope._core import caching
from memscope.errors import UsageError
from memscope.techniques.program import Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique

_NAME = "empty-cache"


def apply(program: Program, text: str) -> Change:
    """Give unused segments back at the end of each step.

    Raises
    ------
    UsageError
        If asked for another time than after each step.
    DoesNotApplyError
        If no steps can be told.
    """
    if text != "each-step":
        raise UsageError(f"{_NAME}:{text}: it is known as {_NAME}:each-step")
    if not len(program.step_ends):
        raise DoesNotApplyError(
            f"{_NAME}:each-step does not apply: this trace does not tell its steps; mark them with recorder.step()"
        )
    # Just before the first request of the next step; after the last step nothing follows.
    begins = np.sort(program.begin[program.is_made])
    following = np.searchsorted(begins, program.step_ends)
    times = begins[following[following < len(begins)]] - 1
    changed = program.with_others(np.unique(times), caching.Op.EMPTY_CACHE)
    cost = Cost(words="cudaFree waits for the device, and each step asks the driver for its memory anew")
    return Change(changed, cost, how="torch.cuda.empty_cache()  # at the end of each step")


TECHNIQUE = Technique(
    name=_NAME,
    usage="empty-cache:each-step",
    summary="torch.cuda.empty_cache() after each step",
    proof="changed-program",
    apply=apply,
    defaults=("each-step",),
)
