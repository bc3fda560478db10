"""What the program was doing at each event: found from the stacks, without the program's help.

PyTorch runs a backward pass on CUDA in threads of its own, whose allocations have no Python stack: after a forward
pass, events without a stack belong to its backward pass. Code outside of every module between a forward pass and its
backward pass (the loss) belongs to the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.frames import FramePattern, StackSearch
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int8Array, Int64Array
from memscope.trace.trace import Trace

_NEVER = np.iinfo(np.int64).max
_N_LEAST_CALLED = 8
"""Allocations of a call of modules, from which it says something."""
_SAME_STACK_SHARE = 0.9
"""Frees whose stacks are those of their allocs, more often than this, say nothing about where they happened."""


class Phase(IntEnum):
    """What a program is doing. ``UNTOLD``: no stack was recorded; ``OUTSIDE``: the stack is of none of the others."""

    UNTOLD = -1
    OUTSIDE = 0
    LOAD = 1
    FORWARD = 2
    BACKWARD = 3
    OPTIMIZER = 4
    GENERATE = 5

    @property
    def label(self) -> str:
        """The name as it is written everywhere."""
        return self.name.lower()


PHASE_BY_LABEL = {phase.label: phase for phase in Phase if phase is not Phase.UNTOLD}


@dataclass(frozen=True)
class PhasePattern:
    """A frame that tells a phase, and why."""

    phase: Phase
    pattern: FramePattern
    reason: str


_MODULE_CALL = FramePattern(r"torch/nn/modules/module\.py$", r"^(_call_impl|_wrapped_call_impl)$")

PHASE_PATTERNS: tuple[PhasePattern, ...] = (
    PhasePattern(
        Phase.GENERATE,
        FramePattern(r"transformers/generation/\w+\.py$", r"^(generate|_sample|_beam_search|_assisted_decoding)$"),
        "transformers' generation loop",
    ),
    PhasePattern(
        Phase.GENERATE,
        FramePattern(r"(vllm|sglang)/.*(model_runner|scheduler)\w*\.py$", r"^(execute_model|forward_batch|run_batch)"),
        "a serving engine runs one batch",
    ),
    PhasePattern(
        Phase.GENERATE, FramePattern(r"diffusers/pipelines/", r"^__call__$"), "a diffusers pipeline makes an image"
    ),
    PhasePattern(
        Phase.BACKWARD,
        FramePattern(r"torch/autograd/(graph|__init__)\.py$", r"^(_engine_run_backward|backward|grad|_make_grads)$"),
        "the program runs the autograd engine",
    ),
    PhasePattern(
        Phase.BACKWARD, FramePattern(function=r"autograd::Engine::|autograd::python::PythonEngine"), "the engine in C++"
    ),
    PhasePattern(Phase.BACKWARD, FramePattern(r"torch/_tensor\.py$", r"^backward$"), "Tensor.backward"),
    PhasePattern(
        Phase.BACKWARD,
        FramePattern(r"torch/utils/checkpoint\.py$", r"^(unpack_hook|inner_unpack|backward|recompute_fn)$"),
        "a checkpoint computes its activations again, in a thread of the engine",
    ),
    PhasePattern(
        Phase.BACKWARD,
        FramePattern(r"torch/distributed/fsdp/", r"^_?(pre|post)_backward|backward_final_callback$|^backward$"),
        "FSDP's hooks on the backward pass",
    ),
    PhasePattern(Phase.BACKWARD, FramePattern(r"\.py$", r"^backward$"), "a torch.autograd.Function's backward"),
    PhasePattern(Phase.FORWARD, _MODULE_CALL, "a module is called"),
    PhasePattern(
        Phase.FORWARD, FramePattern(r"torchinductor_\w*/.*\.py$", r"^call$"), "a graph that torch.compile has compiled"
    ),
    PhasePattern(
        Phase.OPTIMIZER,
        FramePattern(r"torch/optim/\w+\.py$", r"^zero_grad$"),
        "an optimizer drops gradients, in a closure too",
    ),
    PhasePattern(Phase.OUTSIDE, FramePattern(r"\.py$", r"(^|\.)closure$"), "the program's own work, called by a step"),
    PhasePattern(
        Phase.OPTIMIZER,
        FramePattern(
            r"torch/optim/(?!lr_scheduler)\w+\.py$",
            r"^(profile_hook_step|wrapper|_use_grad|step|zero_grad|_init_group|_\w*tensor_\w+|_fused_\w+)$",
        ),
        "an optimizer of torch.optim, or any that is derived from its base class, steps or drops gradients",
    ),
    PhasePattern(
        Phase.OPTIMIZER,
        FramePattern(r"(bitsandbytes|apex|deepspeed|megatron|transformer_engine)/.*optim\w*", r"^(step|update_step)$"),
        "an optimizer of a library steps",
    ),
    PhasePattern(
        Phase.OPTIMIZER, FramePattern(r"deepspeed/runtime/engine\.py$", r"^(step|_take_model_step)$"), "DeepSpeed steps"
    ),
    PhasePattern(
        Phase.OPTIMIZER,
        FramePattern(r"torch/nn/modules/module\.py$", r"^zero_grad$"),
        "Module.zero_grad drops gradients",
    ),
    PhasePattern(
        Phase.LOAD,
        FramePattern(r"torch/nn/modules/module\.py$", r"^(_apply|load_state_dict)$"),
        "a module is moved, converted or filled",
    ),
    PhasePattern(
        Phase.LOAD,
        FramePattern(r"\.py$", r"^(from_pretrained|load_model|load_weights|load_state_dict)$"),
        "a model is loaded",
    ),
)
"""The table, in order: the first that fits a stack tells its phase."""


def phase_of_stacks(trace: Trace, search: StackSearch | None = None) -> Int8Array:
    """The phase that each stack by itself tells: int8 (stacks,), ``OUTSIDE`` where it tells none."""
    search = search or StackSearch(trace)
    phase = np.full(len(trace.stacks), Phase.OUTSIDE, np.int8)
    for told in reversed(PHASE_PATTERNS):
        phase[search.stacks(told.pattern)] = told.phase
    return phase


@dataclass(frozen=True, slots=True)
class PhaseRuns:
    """A device's events as runs of one phase each; events that tell nothing end no run.

    Attributes
    ----------
    phase
        int8 (runs,): :class:`Phase`, never ``UNTOLD``.
    begin, end
        int64 (runs,): the first event of each run, and the first event after it (the largest int64 for the last).
    row_phase
        int8 (rows,): phase of each allocation; what predates the events has the phase of its stack.
    row_run
        int64 (rows,): the run that each was made in, −1 for none.
    """

    phase: Int8Array
    begin: Int64Array
    end: Int64Array
    row_phase: Int8Array
    row_run: Int64Array

    def run_at(self, event: Int64Array) -> Int64Array:
        """The run that lasts at each event: int64, −1 before the first."""
        at: Int64Array = np.searchsorted(self.begin, event, "right") - 1
        return at

    def last_made(self, alloc_event: Int64Array) -> Int64Array:
        """The last allocation within each run, −1 for none, of the rows' alloc events: int64 (runs,)."""
        last = np.full(len(self.phase), NONE_ID, np.int64)
        made = np.flatnonzero(self.row_run != NONE_ID)
        np.maximum.at(last, self.row_run[made], alloc_event[made])
        return last

    def phase_at(self, event: Int64Array) -> Int8Array:
        """The phase at each event, ``UNTOLD`` before the first run: int8."""
        if not len(self.phase):
            return np.full(len(event), Phase.UNTOLD, np.int8)
        at = self.run_at(event)
        found: Int8Array = np.where(at >= 0, self.phase[at], Phase.UNTOLD).astype(np.int8)
        return found


def find_phases(lifetimes: DeviceLifetimes, search: StackSearch | None = None) -> PhaseRuns:
    """Follow a device through its phases; linear in its events."""
    trace, table = lifetimes.trace, lifetimes.allocations
    of_stack = phase_of_stacks(trace, search)
    events = _telling_events(lifetimes)
    phase = _of_ids(of_stack, trace.stack_id[events])
    phase = _with_untold_backward(phase)
    phase = _with_loss(phase)
    seen = phase != Phase.UNTOLD
    events, phase = events[seen], phase[seen]
    first = np.ones(len(phase), np.bool_)
    first[1:] = phase[1:] != phase[:-1]
    begin = events[first]
    end = np.append(begin[1:], _NEVER) if len(begin) else begin
    row_phase = _of_ids(of_stack, table.stack_id)
    row_run = np.full(len(table), NONE_ID, np.int64)
    position = np.searchsorted(events, table.alloc_event)
    inside = (table.alloc_event != NONE_ID) & (position < len(events))
    inside[inside] = events[position[inside]] == table.alloc_event[inside]
    row_run[inside] = (np.cumsum(first) - 1)[position[inside]]
    row_phase[inside] = phase[position[inside]]
    return PhaseRuns(phase[first], begin, end, row_phase, row_run)


def _of_ids(of_stack: Int8Array, stack_id: np.ndarray) -> Int8Array:
    """The phase of each stack id, ``UNTOLD`` for none."""
    found = np.full(len(stack_id), Phase.UNTOLD, np.int8)
    has = stack_id != NONE_ID
    found[has] = of_stack[stack_id[has]]
    return found


def _telling_events(lifetimes: DeviceLifetimes) -> Int64Array:
    """Allocs, and frees where their stacks say where they happened: int64, ascending.

    Recordings with ``context="alloc"`` give each free the stack of its alloc; others give frees no stack at all.
    """
    trace, table = lifetimes.trace, lifetimes.allocations
    within = slice(lifetimes.first_event, lifetimes.end_event)
    action = trace.action[within]
    telling = action == Action.ALLOC
    freed = table.free_requested_event != NONE_ID
    free_stack = trace.stack_id[table.free_requested_event[freed]]
    known = free_stack != NONE_ID
    if known.any() and (free_stack[known] == table.stack_id[freed][known]).mean() < _SAME_STACK_SHARE:
        telling |= action == Action.FREE_REQUESTED
    return np.flatnonzero(telling) + lifetimes.first_event


def _with_untold_backward(phase: Int8Array) -> Int8Array:
    """Events without a stack that follow a forward or a backward pass are the backward pass.

    So are those that a recording begins with if such a pass or the optimizer's step comes next: it began within one.
    """
    told = np.flatnonzero(phase > Phase.OUTSIDE)
    if len(told) and phase[told[0]] in (Phase.BACKWARD, Phase.OPTIMIZER):
        known = np.flatnonzero(phase != Phase.UNTOLD)[0]
        phase = np.where(np.arange(len(phase)) < known, np.int8(Phase.BACKWARD), phase)
        told = np.flatnonzero(phase > Phase.OUTSIDE)
    before = np.searchsorted(told, np.arange(len(phase)), "right") - 1
    last = np.where(before >= 0, phase[told[before]] if len(told) else Phase.UNTOLD, Phase.UNTOLD)
    is_backward = (phase == Phase.UNTOLD) & ((last == Phase.FORWARD) | (last == Phase.BACKWARD))
    return np.where(is_backward, np.int8(Phase.BACKWARD), phase)


def _with_loss(phase: Int8Array) -> Int8Array:
    """Events outside of every phase between a forward and a backward pass belong to the forward pass."""
    told = np.flatnonzero(phase > Phase.OUTSIDE)
    if not len(told):
        return phase
    after = np.searchsorted(told, np.arange(len(phase)), "right")
    has_both: BoolArray = (after > 0) & (after < len(told))
    previous = phase[told[np.maximum(after - 1, 0)]]
    following = phase[told[np.minimum(after, len(told) - 1)]]
    is_loss = (phase == Phase.OUTSIDE) & has_both & (previous == Phase.FORWARD) & (following == Phase.BACKWARD)
    return np.where(is_loss, np.int8(Phase.FORWARD), phase)


def calls_without_backward(lifetimes: DeviceLifetimes, runs: PhaseRuns, search: StackSearch) -> bool:
    """Whether a place of the program calls modules and autograd saves nothing of what they make."""
    table, died = lifetimes.allocations, lifetimes.died_event
    rows = np.flatnonzero(
        (runs.row_phase == Phase.FORWARD) & (table.stack_id != NONE_ID) & (table.alloc_event != NONE_ID)
    )
    stacks = lifetimes.trace.stacks
    is_call = search.frames(_MODULE_CALL)
    saved = runs.phase_at(died[rows]) == Phase.BACKWARD
    saved &= died[rows] < NEVER
    places: dict[bytes, list[int]] = {}
    ids, position = np.unique(table.stack_id[rows], return_inverse=True)
    n_rows, n_saved = np.bincount(position), np.bincount(position, weights=saved)
    for stack_id, n, n_kept in zip(ids.tolist(), n_rows.tolist(), n_saved.tolist(), strict=True):
        frames = stacks.frames_of(stack_id)
        calls = np.flatnonzero(is_call[frames])
        if len(calls):
            place = places.setdefault(frames[calls[-1] + 1 :].tobytes(), [0, 0])
            place[0] += n
            place[1] += int(n_kept)
    return any(n >= _N_LEAST_CALLED and not n_kept for n, n_kept in places.values())
