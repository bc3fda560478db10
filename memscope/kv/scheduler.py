"""How an engine forms its steps."""

from __future__ import annotations

from dataclasses import dataclass

from memscope.errors import UsageError

SCHEDULERS = ("static", "continuous", "chunked")
PREEMPTIONS = ("recompute", "swap")


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """The scheduler's limits; the defaults are vLLM's.

    Attributes
    ----------
    policy
        ``static``: a batch runs until its last request is done, and keeps its memory until then. Where keys and values
        are plain tensors (``max-length``, ``concat``) it is padded, as Hugging Face's ``generate`` does it: every
        prompt is made as long as the longest one, and every sequence grows until all are done. ``continuous``:
        requests join and leave at every step, and a prompt is computed in one step. ``chunked``: a prompt may be spread
        over steps.
    max_requests
        The most sequences of a step: requests, or the samples that they ask for.
    max_step_tokens
        The most tokens of a step; where prompts are not spread, at least the longest sequence.
    preemption
        Of a request with all its samples: ``recompute``, or ``swap`` to host memory of ``swap_bytes`` (and recompute
        what has no room there). Managers that share prefixes always recompute.
    """

    policy: str = "chunked"
    max_requests: int = 256
    max_step_tokens: int = 8192
    preemption: str = "recompute"
    swap_bytes: int = 0

    def __post_init__(self) -> None:
        if self.policy not in SCHEDULERS:
            raise UsageError(f"there is no scheduler {self.policy!r}: choose one of {', '.join(SCHEDULERS)}")
        if self.preemption not in PREEMPTIONS:
            raise UsageError(f"there is no preemption {self.preemption!r}: choose one of {', '.join(PREEMPTIONS)}")
        if self.max_requests < 1 or self.max_step_tokens < 1:
            raise UsageError("a step needs at least one request and one token")
        if self.preemption == "swap" and self.swap_bytes < 1:
            raise UsageError("swapping needs --swap-space")
        if self.preemption == "recompute" and self.swap_bytes:
            raise UsageError("--swap-space is used with --preemption swap only")
