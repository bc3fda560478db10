"""Reports of serving replays, as JSON and as text."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rich.console import Console
from rich.text import Text

from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.serving.question import ServingPlan
from memscope.serving.requests import RequestTable
from memscope.serving.result import KvResult
from memscope.serving.scheduler import CostModel, SchedulerOptions
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.labels import NOT_MEASURED
from memscope.words.serving import device_words, refusal_words, result_label, room_words, token_words

LEGEND = (
    "tokens + reserved + internal + external = 100 % of the KV memory that requests claim, over time, in byte·µs",
    "tokens: holds tokens of running requests; reserved: kept for tokens to come",
    "internal: taken and never filled (block tails, padding, lengths not reached)",
    "external: free while a request waits for memory, and rounding to powers of two",
    "memory, counts and hits are exact in the model",
    "~ marks estimates of the cost model, which also decides when requests meet; wait: until a request's first token",
)


@dataclass(frozen=True, slots=True)
class ServingReport:
    """Everything that ``memscope serving`` found: what was worked out, and a result for each job, in their order."""

    plan: ServingPlan
    results: tuple[KvResult, ...]

    @property
    def requests(self) -> RequestTable | None:
        """What was served; None if only a budget was asked for."""
        return self.plan.question.requests

    @property
    def scheduler(self) -> SchedulerOptions:
        """How steps are formed."""
        return self.plan.question.scheduler


def serving_json(report: ServingReport) -> dict[str, Any]:
    """The object of ``memscope serving --json``."""
    shape, budget = report.plan.shape, report.plan.budget
    return {
        "model": {
            "name": report.plan.question.config.name,
            "source": report.plan.question.config.source,
            "kv_dtype": shape.kv_dtype,
            "tensor_parallel": shape.tensor_parallel,
            "n_kv_layers": len(shape.layers),
            "kv_bytes_per_token": shape.bytes_per_token,
            "kv_bytes_per_token_by_window": [
                {"window": window, "kv_bytes_per_token": size} for window, size in shape.groups
            ],
            "max_length": report.plan.max_length,
        },
        "gpu": report.plan.question.gpu_name,
        "budget": {
            "total_bytes": budget.total_bytes,
            "rows": [{"name": row.name, "bytes": row.bytes, "source": row.source} for row in budget.rows],
            "kv_bytes": budget.kv_bytes,
            "kv_tokens": report.plan.n_tokens,
            "block_size": report.plan.block_size,
            "n_blocks": report.plan.n_blocks,
        },
        "requests": None if report.requests is None else _requests_json(report.requests),
        "scheduler": {
            "policy": report.scheduler.policy,
            "max_requests": report.scheduler.max_requests,
            "max_step_tokens": report.scheduler.max_step_tokens,
            "preemption": report.scheduler.preemption,
            "swap_bytes": report.scheduler.swap_bytes,
        },
        "cost_model": None if report.plan.cost is None else _cost_json(report.plan.cost),
        "results": [_result_json(result, report.plan.shape.tensor_parallel) for result in report.results],
    }


def _requests_json(requests: RequestTable) -> dict[str, Any]:
    return {
        "source": requests.source,
        "n_requests": len(requests),
        "n_sequences": int(requests.n_samples.sum()),
        "prompt_tokens": int(requests.prompt_tokens.sum()),
        "output_tokens": int(requests.output_tokens.sum()),
        "span_s": int(requests.arrival_us[-1]) / 1e6,
        "has_prefixes": requests.has_prefixes,
    }


def _cost_json(cost: CostModel) -> dict[str, Any]:
    return {
        "is_estimate": True,
        "flops_per_s": cost.flops_per_s,
        "bytes_per_s": cost.bytes_per_s,
        "step_overhead_s": cost.overhead_s,
        "swap_bytes_per_s": cost.swap_bytes_per_s,
    }


def _result_json(result: KvResult, tensor_parallel: int) -> dict[str, Any]:
    waste = result.waste
    return {
        "manager": result.manager,
        "block_size": result.block_size,
        "page_bytes": result.page_bytes,
        "kv_token_share_frac": result.kv_token_share_frac,
        "waste": {
            "reservation_frac": waste.share(waste.reservation),
            "internal_frac": waste.share(waste.internal),
            "external_frac": waste.share(waste.external),
        },
        "byte_us": {
            "tokens": waste.tokens,
            "reservation": waste.reservation,
            "internal": waste.internal,
            "external": waste.external,
            "unclaimed": waste.unclaimed,
        },
        "capacity_bytes": result.capacity_bytes,
        "peak_alloc_bytes": result.peak_alloc_bytes,
        "peak_token_bytes": result.peak_token_bytes,
        "peak_concurrent_requests": result.peak_concurrent_requests,
        "mean_concurrent_requests": result.mean_concurrent_requests,
        "n_requests": result.n_requests,
        "n_completed": result.n_completed,
        "n_refused": result.n_refused,
        "n_steps": result.n_steps,
        "n_preemptions": result.n_preemptions,
        "n_swaps": result.n_swaps,
        "n_recomputed_tokens": result.n_recomputed_tokens,
        "n_evictions": result.n_evictions,
        "n_block_copies": result.n_block_copies,
        "n_pad_tokens": result.n_pad_tokens,
        "saved_byte_us": result.saved_byte_us,
        "sharing_saved_frac": result.sharing_saved_frac,
        "prefix_hit_frac": result.prefix_hit_frac,
        "n_hit_blocks": result.n_hit_blocks,
        "n_queried_blocks": result.n_queried_blocks,
        "hit_tokens": result.hit_tokens,
        "prompt_tokens": result.prompt_tokens,
        "n_generated_tokens": result.n_generated_tokens,
        "n_computed_tokens": result.n_computed_tokens,
        "longest_context_tokens": result.longest_context_tokens,
        "largest_batch_requests": result.largest_batch_requests,
        "mean_final_tokens": result.mean_final_tokens,
        "estimates": _estimates_json(result, tensor_parallel),
        "concurrency": result.concurrency(),
        "memory_over_time": _over_time_json(result),
        "notes": list(result.notes),
    }


def _estimates_json(result: KvResult, tensor_parallel: int) -> dict[str, Any]:
    """What follows from the cost model."""
    rate = result.requests_per_s
    return {
        "makespan_s": result.makespan_us / 1e6,
        "busy_s": result.busy_us / 1e6,
        "generated_tokens_per_s": result.generated_tokens_per_s,
        "requests_per_s": rate,
        "requests_per_gpu_per_s": None if rate is None else rate / tensor_parallel,
        "first_token_p50_s": result.first_token_s(50),
        "first_token_p99_s": result.first_token_s(99),
    }


def _over_time_json(result: KvResult) -> dict[str, list[Any]]:
    """Means over equal spans, column by column."""
    over_time = result.memory_over_time()
    return {field.name: getattr(over_time, field.name).tolist() for field in fields(over_time)}


def print_serving(report: ServingReport, console: Console) -> None:
    """Print the budget, the managers side by side, and what the numbers mean."""
    _print_budget(report, console)
    if report.requests is None:
        console.print(Text("No requests were given: nothing is replayed, only the budget is worked out.", style="dim"))
        return
    requests, scheduler = report.requests, report.scheduler
    console.print()
    n_sequences = int(requests.n_samples.sum())
    sampled = "" if n_sequences == len(requests) else f", {format_count(n_sequences)} samples of them"
    console.print(Text(f"{format_count(len(requests))} requests from {requests.source}{sampled}", style="bold"))
    console.print(
        f"  {format_count(int(requests.prompt_tokens.sum()))} tokens in, "
        f"{format_count(int(requests.output_tokens.sum()))} out, arriving over {requests.arrival_us[-1] / 1e6:,.0f} s"
    )
    console.print(
        f"  {scheduler.policy} scheduler, at most {scheduler.max_requests:,} requests and "
        f"{scheduler.max_step_tokens:,} tokens a step, {scheduler.preemption} when memory lacks"
    )
    _memory_table(report).print(console)
    console.print()
    _service_table(report).print(console)
    _print_refused(report, console)
    for result in report.results:
        if result.sharing_saved_frac:
            copies = f", {format_count(result.n_block_copies)} blocks copied on write" if result.n_block_copies else ""
            saved = f"shared prompts save {format_fraction(result.sharing_saved_frac)} of what would be held{copies}"
            console.print(f"  {result_label(result)}: {saved}")
        for note in result.notes:
            console.print(Text(f"  {result_label(result)}: {note}", style="yellow"))
    for line in LEGEND:
        console.print(Text(f"  {line}", style="dim"))


def _print_budget(report: ServingReport, console: Console) -> None:
    shape, budget = report.plan.shape, report.plan.budget
    question, one_of = report.plan.question, "one of " if shape.tensor_parallel > 1 else ""
    console.print(Text(f"{question.config.name} on {one_of}{device_words(question)}", style="bold"))
    table = FittedTable(
        Column("", Kind.NAME),
        Column(""),
        Column("", Kind.WORDS, place=1, style="dim", called="where the numbers are from"),
        has_header=False,
    )
    table.add_row("device", format_bytes(budget.total_bytes), "")
    for row in budget.rows:
        size = NOT_MEASURED if row.bytes is None else format_bytes(row.bytes)
        table.add_row(f"− {row.name}" if row.name != "KV cache" else "= KV cache", size, row.source)
    table.print(console)
    console.print(f"  a {token_words(shape)}")
    console.print(f"  room {room_words(report.plan)}")
    if report.plan.question.config.is_partial:
        console.print(Text("  only the text part of the model is counted", style="yellow"))


def _memory_table(report: ServingReport) -> FittedTable:
    """Where the memory goes, and what fits."""
    table = FittedTable(
        Column("manager", Kind.NAME),
        Column("tokens"),
        Column("reserved", place=2),
        Column("internal", place=3),
        Column("external", place=4),
        Column("peak\nrequests", place=1),
        Column("fit at\nonce", place=5),
        Column("longest\ncontext", place=6),
    )
    for result in report.results:
        waste = result.waste
        shares = (waste.tokens, waste.reservation, waste.internal, waste.external)
        table.add_row(
            result_label(result),
            *(_percent(waste.share(part)) for part in shares),
            format_count(result.peak_concurrent_requests),
            _count(result.largest_batch_requests),
            _count(result.longest_context_tokens),
        )
    return table


def _service_table(report: ServingReport) -> FittedTable:
    """What the requests got; the last three columns are estimates."""
    table = FittedTable(
        Column("manager", Kind.NAME),
        Column("prefix\nhits", place=3),
        Column("evictions", place=6),
        Column("preempted", place=2),
        Column("~tokens\na second", place=1),
        Column("~wait s\nmedian", place=4),
        Column("~wait s\n99 %", place=5),
    )
    for result in report.results:
        table.add_row(
            result_label(result),
            _percent(result.prefix_hit_frac),
            format_count(result.n_evictions),
            format_count(result.n_preemptions),
            _estimate(result.generated_tokens_per_s, "{:,.0f}"),
            _estimate(result.first_token_s(50), "{:,.1f}"),
            _estimate(result.first_token_s(99), "{:,.1f}"),
        )
    return table


def _estimate(value: float | None, form: str) -> str:
    return "—" if value is None else form.format(value)


def _print_refused(report: ServingReport, console: Console) -> None:
    mean = report.results[0].mean_final_tokens if report.results else 0
    console.print(Text(f"  fit at once: requests of {format_count(mean)} tokens, the mean at their end", style="dim"))
    for result in report.results:
        refused = refusal_words(result, report.plan.max_length)
        if refused is not None:
            console.print(Text(f"  {result_label(result)}: {refused}", style="yellow"))


def _percent(fraction: float | None) -> str:
    return "—" if fraction is None else format_fraction(fraction)


def _count(n: int | None) -> str:
    return "—" if n is None else format_count(n)
