"""What replays of requests found, in words; the names and meanings of the parts of key/value memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memscope.gpus import find_gpu
from memscope.serving.question import ServingPlan, ServingQuestion
from memscope.serving.result import KvResult, KvWaste
from memscope.serving.scheduler import BANDWIDTH_FRAC, COMPUTE_FRAC, STEP_OVERHEAD_S
from memscope.serving.shapes import KvShape
from memscope.units import format_bytes, format_count, format_fraction

WHAT_IS_EXACT = "Memory, counts and prefix hits are exact in the model."
WHAT_IS_ESTIMATED = (
    "Times, rates and when requests meet follow from a cost model: estimates. It assumes "
    f"{100 * COMPUTE_FRAC:.0f} % of the GPU's arithmetic, {100 * BANDWIDTH_FRAC:.0f} % of its bandwidth and "
    f"{1000 * STEP_OVERHEAD_S:g} ms a step."
)
_NEARLY_FRAC = 0.05
"""Shares of tokens that differ by less are told apart by nothing that matters."""


@dataclass(frozen=True, slots=True)
class ClaimedPart:
    """One part of the key/value memory that requests claim.

    Attributes
    ----------
    name
        As in :class:`~memscope.serving.result.KvWaste`.
    """

    name: str
    label: str
    meaning: str

    def share_frac(self, waste: KvWaste) -> float:
        """Its share of what is claimed, over time; 0 if nothing ever was."""
        return waste.share(int(getattr(waste, self.name))) or 0.0


CLAIMED_PARTS = (
    ClaimedPart("tokens", "tokens", "holds tokens of running requests"),
    ClaimedPart("reservation", "reserved", "kept for tokens that its request will have"),
    ClaimedPart("internal", "internal", "taken and never filled: block tails, lengths not reached"),
    ClaimedPart("external", "external", "free while a request waits for memory, or rounding to powers of two"),
)
"""The parts, in stacking order; the shares of all of them sum to 1."""


def device_words(question: ServingQuestion) -> str:
    """What is served on: ``2 × H100-80GB``, or with the memory that was given in place of its own."""
    gpus = f"{question.tensor_parallel} × " if question.tensor_parallel > 1 else ""
    total = question.memory.total_bytes
    given = "" if total == find_gpu(question.gpu_name).total_bytes else f" with {format_bytes(total)}"
    return f"{gpus}{question.gpu_name}{given}"


def result_label(result: KvResult) -> str:
    """A manager with the size of its blocks or pages, ``paged (16)``."""
    return manager_label(result.manager, result.block_size, result.page_bytes)


def manager_label(manager: str, block_size: int | None, page_bytes: int | None = None) -> str:
    """Like :func:`result_label`, of what is still to come."""
    if block_size is not None:
        return f"{manager} ({block_size})"
    return manager if page_bytes is None else f"{manager} ({format_bytes(page_bytes)})"


def best_result(results: Sequence[KvResult]) -> KvResult | None:
    """The first of those that serve most at once, and whose memory then holds most tokens, or nearly so."""
    most = max((result.peak_concurrent_requests for result in results), default=0)
    first = [result for result in results if result.peak_concurrent_requests == most]
    share = max((_share_frac(result) for result in first), default=0.0)
    return next((result for result in first if _share_frac(result) >= share - _NEARLY_FRAC), None)


def serving_finding(results: Sequence[KvResult]) -> str:
    """The verdict in plain words."""
    best = best_result(results)
    if best is None:
        return "No request could be served"
    worst = min(results, key=lambda result: (result.peak_concurrent_requests, _share_frac(result)))
    most, least = best.peak_concurrent_requests, worst.peak_concurrent_requests
    name, other = _label_among(best, results), _label_among(worst, results)
    filled = f"tokens fill {_share(best)} of its KV memory"
    if most > least:
        return (
            f"{name} serves {format_count(most)} at once, {other} {format_count(least)}: {filled}, not {_share(worst)}"
        )
    if len(results) == 1:
        return f"{name} serves {_requests(most)} at once; {filled}"
    if _share_frac(best) - _share_frac(worst) <= _NEARLY_FRAC:
        return f"All {len(results)} serve {_requests(most)} at once, and tokens fill {_share(best)} of their KV memory"
    shares = f"{_share(best)} of the KV memory with {name}, {_share(worst)} with {other}"
    return f"All serve {_requests(most)} at once; tokens fill {shares}"


def _label_among(result: KvResult, results: Sequence[KvResult]) -> str:
    """The manager's bare name where it was replayed with one size only."""
    is_alone = sum(other.manager == result.manager for other in results) == 1
    return result.manager if is_alone else result_label(result)


def _share(result: KvResult) -> str:
    return format_fraction(_share_frac(result))


def _share_frac(result: KvResult) -> float:
    return result.kv_token_share_frac or 0.0


def _requests(n: int) -> str:
    return f"{format_count(n)} request{'' if n == 1 else 's'}"


def budget_finding(plan: ServingPlan) -> str:
    """What is left for keys and values, in plain words."""
    question, budget = plan.question, plan.budget
    each = " on each" if plan.shape.tensor_parallel > 1 else ""
    return (
        f"{question.config.name} on {device_words(question)} leaves {format_bytes(budget.kv_bytes)}{each} for keys "
        f"and values: {format_count(plan.n_tokens)} tokens"
    )


def shape_words(plan: ServingPlan) -> str:
    """What a token takes, and how many fit."""
    return f"A {token_words(plan.shape)}. Room {room_words(plan)}."


def token_words(shape: KvShape) -> str:
    """``token takes 128.0 KiB in bf16``, and how much of it in layers with each window."""
    words = f"token takes {format_bytes(shape.bytes_per_token)} in {shape.kv_dtype}"
    if len(shape.groups) == 1 and shape.groups[0][0] is None:
        return words
    parts = [
        f"{format_bytes(size)} in layers that keep {'all tokens' if window is None else f'{window:,} tokens'}"
        for window, size in shape.groups
    ]
    return f"{words} ({', '.join(parts)})"


def room_words(plan: ServingPlan) -> str:
    """``for 1,000 tokens, …``: what fits into the cache, the longest sequence, and what it lacks where it does not fit.

    Engines such as vLLM do not start where a sequence of the longest length does not fit.
    """
    words = (
        f"for {format_count(plan.n_tokens)} tokens, or {format_count(plan.n_blocks)} blocks of {plan.block_size}; "
        f"the longest sequence is {format_count(plan.max_length)} tokens"
    )
    missing = plan.longest_missing_bytes
    if not missing:
        return words
    most = format_count(plan.longest_fitting)
    return f"{words}, which does not fit: {format_bytes(missing)} are missing, or {most} tokens at most"


def requests_words(plan: ServingPlan) -> str:
    """What is served."""
    requests = plan.question.requests
    if requests is None:
        return "No requests."
    return (
        f"{format_count(len(requests))} requests from {requests.source}: "
        f"{format_count(int(requests.prompt_tokens.sum()))} tokens in, "
        f"{format_count(int(requests.output_tokens.sum()))} out, arriving over {requests.arrival_us[-1] / 1e6:,.0f} s."
    )


def scheduler_words(plan: ServingPlan) -> str:
    """How it is served."""
    scheduler = plan.question.scheduler
    return (
        f"{scheduler.policy.capitalize()} scheduler, at most {scheduler.max_requests:,} requests and "
        f"{scheduler.max_step_tokens:,} tokens a step, {scheduler.preemption} when memory lacks."
    )


def refusal_words(result: KvResult, max_length: int) -> str | None:
    """How many requests were refused, and why; None if none was."""
    if not result.n_refused:
        return None
    return (
        f"{format_count(result.n_refused)} requests are refused: longer than {format_count(max_length)} tokens, or "
        "than the memory"
    )
