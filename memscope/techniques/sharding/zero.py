"""``zero:1|2|3:ranks=N``: the stages of ZeRO, as PyTorch has them.

Stage 1 is ``ZeroRedundancyOptimizer`` under ``DistributedDataParallel``: each rank keeps the states of its own
parameters, whole ones, dealt out from the largest down to the rank that has least; gradients are copied into buckets,
which stay: all of them in one until the first backward pass is over, then of 25 MiB and more, in the order in which
gradients come, the first of 1 MiB and more. Stage 2 shards gradients and weights as well, and keeps a layer whole from
its forward to its backward pass (``fully_shard`` with ``reshard_after_forward=False``); stage 3 is ``fsdp2``.

Assumes the recorded batch on each rank, gradients that are let go of after each step, and, of buckets, parameters of
one type. What is said is the first rank's, which has the largest parameter. Costs the gradients twice over the links,
and what :mod:`memscope.techniques.sharding.fsdp` says. Source: ``torch/distributed/optim/zero_redundancy_optimizer.py``
and ``torch/csrc/distributed/c10d/reducer.cpp``, read at 2.13; Rajbhandari et al., ZeRO (2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memscope.errors import UsageError
from memscope.lifetimes.tables import NEVER
from memscope.techniques.program import NewRows, Program
from memscope.techniques.sharding._parameters import Parameter, gradient_rows, parameters_of, with_states
from memscope.techniques.sharding.fsdp import sharded
from memscope.techniques.technique import Change, Cost, Technique, whole_number
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID

_NAME = "zero"
_LEAST_RANKS = 2
_FIRST_BUCKET_BYTES = 1 << 20
_BUCKET_BYTES = 25 << 20


def apply(program: Program, text: str) -> Change:
    """Shard what a stage shards.

    Raises
    ------
    UsageError
        If there is no such stage, or it is not said over how many ranks.
    """
    stage, _, ranks = text.partition(":")
    if stage not in ("1", "2", "3"):
        asked = f"{_NAME}:{text}" if text else _NAME
        raise UsageError(f"{asked}: give a stage and the ranks, as {_NAME}:1:ranks=8; the stages are 1, 2 and 3")
    name = f"{_NAME}:{stage}"
    n_ranks = whole_number(name, ranks, "ranks", _LEAST_RANKS)
    if stage == "1":
        return _states_alone(program, name, n_ranks)
    frees = stage == "3"
    options = "" if frees else ", reshard_after_forward=False"
    how = f"fully_shard(layer{options}) for each layer, then fully_shard(model); its optimizer is made after that"
    return sharded(program, name, n_ranks, how, frees_after_forward=frees)


def _states_alone(program: Program, name: str, n_ranks: int) -> Change:
    parameters = parameters_of(program, name)
    trained = [each for each in parameters if each.is_trained]
    own = {each.name for each in dealt(trained, n_ranks)}
    changed = with_states(program, parameters, lambda parameter, n_bytes: n_bytes if parameter.name in own else 0)
    changed = changed.with_rows(_buckets(program, trained))
    gradients = sum(each.size_bytes for each in trained)
    # A reduction over a ring sends each byte twice; then each rank sends its parameters to the others.
    moved = (2 * gradients + gradients) * (n_ranks - 1) // n_ranks
    return Change(
        changed,
        Cost(moved_bytes_per_step=moved, words=f"{n_ranks:,} devices"),
        how="ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, ...), the model in DistributedDataParallel",
        assumes=(f"each of the {n_ranks:,} ranks has the recorded batch; this is the first of them",),
    )


def dealt(parameters: Sequence[Parameter], n_ranks: int) -> list[Parameter]:
    """The parameters whose states are the first rank's.

    >>> a, b = (Parameter(name, 0, (n,), 4 * n, True) for name, n in (("a", 3), ("b", 5)))
    >>> [each.name for each in dealt([a, b], 2)]
    ['b']
    """
    taken, own = [0] * n_ranks, []
    for each in sorted(parameters, key=lambda each: -each.n_elements):
        rank = taken.index(min(taken))
        taken[rank] += each.n_elements
        if rank == 0:
            own.append(each)
    return own


def _buckets(program: Program, trained: Sequence[Parameter]) -> NewRows:
    """What gradients are copied into: one bucket until the second forward pass, then several in the order seen."""
    first, *later = program.passes
    until = later[0].forward + 1 if later else NEVER
    rows = [(first.forward + 1, until, sum(each.size_bytes for each in trained), NONE_ID)]
    if later:
        came = [gradient_rows(program, each.name, first.backward, first.end) for each in trained]
        order = np.argsort([int(program.begin[made].min(initial=NEVER)) for made in came], kind="stable")
        held = 0
        for position, i in enumerate(order.tolist()):
            held += trained[i].size_bytes
            limit = _FIRST_BUCKET_BYTES if len(rows) == 1 else _BUCKET_BYTES
            if held >= limit or position == len(order) - 1:
                rows.append((later[0].forward + 2, NEVER, held, NONE_ID))
                held = 0
    return NewRows.of(rows, Category.COMMUNICATION)


TECHNIQUE = Technique(
    name=_NAME,
    usage="zero:1|2|3:ranks=N",
    summary="states, then gradients and weights, in shards over N ranks",
    proof="changed-program",
    apply=apply,
    defaults=("1:ranks=8", "2:ranks=8"),
)
