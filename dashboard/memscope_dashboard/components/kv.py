"""The simulation of serving: its controls, the budget, the managers' table, progress and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from memscope.gpus import DEFAULT_GPU, gpu_names
from memscope.serving.budget import DEFAULT_UTILISATION
from memscope.serving.managers import MANAGERS, PAGE_SIZES
from memscope.serving.presets import PRESETS
from memscope.serving.question import DEFAULT_BLOCK_SIZE, ServingPlan
from memscope.serving.requests import LENGTHS
from memscope.serving.result import KvResult
from memscope.serving.scheduler import PREEMPTIONS, SCHEDULERS, SchedulerOptions
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.serving import (
    CLAIMED_PARTS,
    WHAT_IS_ESTIMATED,
    WHAT_IS_EXACT,
    manager_label,
    refusal_words,
    result_label,
    scheduler_words,
)
from memscope_dashboard.components.grid import NUMBER, data_grid
from memscope_dashboard.components.text import size
from memscope_dashboard.kv_board import DEFAULT_N_REQUESTS, DEFAULT_RATE, FROM_FILE, KvState
from memscope_dashboard.kv_uploads import MAX_SENT_BYTES

ROW_PX, HEAD_PX = 32, 52
_NONE = "—"
_SHARES = tuple((part.name, part.label, part.meaning) for part in CLAIMED_PARTS)
_COUNTS = (
    ("peak", "peak at once", "requests that run at the same time, at most"),
    ("mean", "mean at once", "requests that run at the same time, on average over time"),
    ("preempted", "put back", "requests put back because memory lacked"),
    ("evictions", "evicted", "cached blocks of prefixes given up for others"),
    ("hits", "prefix hits", "full blocks of prompts found cached at a request's first start"),
    ("batch", "fit at once", "requests of the mean final length that fit together"),
    ("context", "longest context", "tokens of the longest sequence that fits alone"),
)
_ESTIMATES = (("rate", "≈ req/s", "estimate of the cost model: requests completed, over the whole replay, on one GPU"),)


def budget_table(plan: ServingPlan) -> Component:
    """The device's memory, shared out line by line, with where each number is from."""
    budget = plan.budget
    rows = [html.Tr([html.Td("device"), html.Td(size(budget.total_bytes), className="num"), html.Td()])]
    for row in budget.rows:
        is_rest = row.name == "KV cache"
        cells = [
            html.Td(f"{'=' if is_rest else '−'} {row.name}"),
            html.Td(size(row.bytes), className="num"),
            html.Td("" if row.bytes is None else row.source, className="quiet"),
        ]
        rows.append(html.Tr(cells, className="total" if is_rest else ""))
    return html.Table(html.Tbody(rows), className="small-table kv-budget")


def manager_grid() -> Component:
    """The table of managers, empty."""
    columns = [
        {"field": "label", "headerName": "manager", "width": 140, "pinned": "left", "tooltipField": "summary"},
        *[_column(name, heading, meaning, 66) for name, heading, meaning in _SHARES],
        *[_column(name, heading, meaning, 60) for name, heading, meaning in _COUNTS],
        *[_column(name, heading, meaning, 58) for name, heading, meaning in _ESTIMATES],
    ]
    selection = {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True}
    return data_grid("kv-grid", columns, "", rowSelection=selection, headerHeight=HEAD_PX, rowHeight=ROW_PX)


def _column(name: str, heading: str, meaning: str, width: int) -> dict[str, Any]:
    return {
        "field": name,
        "headerName": heading,
        "headerTooltip": meaning,
        "flex": 1,
        "minWidth": width,
        "wrapHeaderText": True,
        "valueFormatter": {"function": f"params.data ? params.data.{name}_text : ''"},
        **NUMBER,
    }


def manager_rows(state: KvState) -> list[dict[str, Any]]:
    """A row for each replay of the plan; those that are not done, or could not be made, have no numbers."""
    rows = []
    for job, outcome in zip(state.plan.jobs, state.outcomes, strict=True):
        row: dict[str, Any] = {
            "row": job_label(job.manager, job.options.block_size, job.options.page_bytes),
            "summary": MANAGERS[job.manager].summary,
        }
        row["label"] = row["row"]
        result = None if outcome is None else outcome.result
        missing = "…" if outcome is None else _NONE
        values = _nothing(missing) if result is None else _numbers(result, state.plan.shape.tensor_parallel)
        for name, (value, text) in values.items():
            row |= {name: value, f"{name}_text": text}
        rows.append(row)
    return rows


def job_label(manager: str, block_size: int, page_bytes: int) -> str:
    """A replay's name, the same as its result's."""
    blocks = block_size if MANAGERS[manager].has_blocks else None
    return manager_label(manager, blocks, page_bytes if manager == "virtual" else None)


def _nothing(text: str) -> dict[str, tuple[float | None, str]]:
    """Every number of a row that has none, shown as the text."""
    return {name: (None, text) for name, _, _ in (*_SHARES, *_COUNTS, *_ESTIMATES)}


def _numbers(result: KvResult, tensor_parallel: int) -> dict[str, tuple[float | None, str]]:
    """Every number of a result and how it is shown."""
    rate = result.requests_per_s
    each = None if rate is None else rate / tensor_parallel
    found = {part.name: _percent(result.waste.share(getattr(result.waste, part.name))) for part in CLAIMED_PARTS}
    found |= {
        "peak": _count(result.peak_concurrent_requests),
        "mean": (result.mean_concurrent_requests, f"{result.mean_concurrent_requests:,.1f}"),
        "preempted": _count(result.n_preemptions),
        "evictions": _count(result.n_evictions),
        "hits": _percent(result.prefix_hit_frac),
        "batch": _count(result.largest_batch_requests),
        "context": _count(result.longest_context_tokens),
        "rate": (each, _NONE if each is None else f"{each:,.2f}"),
    }
    return found


def _percent(fraction: float | None) -> tuple[float | None, str]:
    return fraction, _NONE if fraction is None else format_fraction(fraction)


def _count(n: int | None) -> tuple[float | None, str]:
    return n, _NONE if n is None else format_count(n)


def progress_words(state: KvState) -> str:
    """How far the work is, and what became of it."""
    n_all, running = len(state.outcomes), state.running
    done = f"{format_count(state.n_done)} of {format_count(n_all)} managers"
    if running.state == "running" and state.at:
        requests = f"{format_count(running.n_done)} of {format_count(running.n_all)} requests"
        return f"{state.at}: {requests} served" if running.n_done else f"{state.at}: starting…"
    return {
        "waiting": f"{done}; waits for another simulation to end",
        "running": done,
        "done": "",
        "cancelled": f"Cancelled: {done} done." if state.n_done < n_all else "",
        "failed": f"Failed after {done}: {running.problem}",
    }[running.state]


def notes(state: KvState) -> list[Component]:
    """What could not be replayed, what was refused, what the replays assume, and which numbers are what."""
    problems = [
        html.Li([html.Span(f"{manager_label(one.manager, one.block_size)}: ", className="quiet"), one.problem])
        for one in state.done
        if one.problem
    ]
    results = state.results
    found = [*_grouped([(refusal_words(r, state.plan.max_length), result_label(r)) for r in results])]
    found += _grouped([(note, result.manager) for result in results for note in result.notes])
    mean = results[0].mean_final_tokens if results else 0
    words = f"“fit at once” counts requests of {format_count(mean)} tokens, the mean at their end. "
    parts: list[Component] = [
        html.P([words if mean else "", WHAT_IS_EXACT, " ≈ ", WHAT_IS_ESTIMATED, " ", scheduler_words(state.plan)])
    ]
    if problems:
        parts.insert(0, html.Ul(problems, className="kv-problems"))
    if found:
        parts.append(html.Ul(found))
    if state.plan.question.config.is_partial:
        parts.append(html.P("Only the text part of the model is counted.", className="warn"))
    return parts


def _grouped(pairs: Sequence[tuple[str | None, str]]) -> list[Component]:
    """The same sentence about several managers said once."""
    who: dict[str, list[str]] = {}
    for text, name in pairs:
        if text is not None and name not in who.setdefault(text, []):
            who[text].append(name)
    return [html.Li([html.Span(f"{', '.join(names)}: ", className="quiet"), text]) for text, names in who.items()]


HIDDEN = {"display": "none"}
DEFAULT_MODEL = "llama-3-8b"

WEIGHT_LABELS = {"none": "16 bits", "int8": "8 bits", "int4": "4 bits"}
KV_LABELS = {"bf16": "16 bits", "fp8": "8 bits (fp8)", "int4": "4 bits (int4)"}
_LENGTH_WORDS = {"sharegpt": "made: chats (ShareGPT)", "alpaca": "made: short (Alpaca)", "long-prompt": "made: long"}
LENGTH_LABELS = {name: _LENGTH_WORDS.get(name, f"made: {name}") for name in LENGTHS}
SCHEDULER_LABELS = {"static": "static batches", "continuous": "continuous", "chunked": "chunked prefill"}

LABELS = {
    "capacity": "GPU memory",
    "tensor-parallel": "GPUs per model",
    "n": "How many",
    "rate": "Per second",
    "burstiness": "Burstiness",
    "shared": "Shared prefix",
    "seed": "Seed",
    "first": "First so many",
    "speed-up": "Speed-up",
    "block-sizes": "Block sizes",
    "max-length": "Longest sequence",
    "max-requests": "Requests per step",
    "step-tokens": "Tokens per step",
    "swap": "Swap space",
    "utilisation": "Memory taken",
    "weight-size": "Weight size",
}
"""Controls in which something can be wrong, as they are called."""
VALUES = (
    *("model", "gpu", "capacity", "weights", "kv-dtype", "tensor-parallel"),
    *("lengths", "n", "rate", "burstiness", "shared", "seed"),
    *("requests-file", "first", "speed-up"),
    *("managers", "block-sizes", "max-length"),
    *("scheduler", "max-requests", "step-tokens", "preemption", "swap", "page", "utilisation", "weight-size"),
)
"""Every control with a value, by the part of its id after ``kv-``."""
_DEFAULT_SCHEDULER = SchedulerOptions()
_KEPT: dict[str, Any] = {"persistence": True, "persistence_type": "session"}
_COMBO = {"shadow": "md", "position": "bottom-start"}


def controls() -> Component:
    """All of them, in rows of what belongs together; what is seldom changed is folded up."""
    rows = html.Div([_device_row(), _request_row(), _manager_row()], className="kv-rows")
    return html.Div([rows, _more(), _run_line()], className="panel kv-controls")


def model_options(sent: Mapping[str, str]) -> list[dict[str, str]]:
    """The presets, and what was sent: id → name."""
    found = [{"value": name, "label": name} for name in PRESETS]
    return found + [{"value": id_, "label": f"{name} (sent)"} for id_, name in sent.items()]


def _device_row() -> Component:
    return html.Div(
        [
            _with_upload(
                "Model",
                _select("model", model_options({}), DEFAULT_MODEL, label=None, searchable=True),
                _upload("config-upload", "send a config.json", ".json,.gz"),
                "span-2",
            ),
            _select("gpu", _plain_options(gpu_names()), DEFAULT_GPU, "GPU", searchable=True),
            _text("capacity", "the GPU's"),
            _select("weights", _options(WEIGHT_LABELS), "none", "Weights"),
            _select("kv-dtype", _options(KV_LABELS), "bf16", "Keys and values"),
            _number("tensor-parallel", 1, 1),
        ],
        className="kv-row kv-device",
    )


def _request_row() -> Component:
    made = [
        _number("n", DEFAULT_N_REQUESTS, 1),
        _number("rate", DEFAULT_RATE, 0),
        _number("burstiness", 1, 0, title="1: Poisson arrivals; more: bursty"),
        _number("shared", 0, 0, suffix=" %", title="Requests that begin with a common prefix"),
        _number("seed", 0, 0),
    ]
    upload = dcc.Upload(
        html.Span("Choose a file, or drop one here: Azure, BurstGPT or plain CSV, Mooncake JSON lines; .gz too"),
        id="kv-requests-upload",
        className="kv-drop",
        max_size=MAX_SENT_BYTES,
    )
    sent = [
        html.Div(
            [html.Div("File", className="kv-label"), upload],
            className="span-3",
        ),
        _number("first", "", 1, placeholder="all"),
        _number("speed-up", 1, 0),
    ]
    lengths = [*_options(LENGTH_LABELS), {"value": FROM_FILE, "label": "from a file…"}]
    return html.Div(
        [
            html.Div(_select("lengths", lengths, "sharegpt", "Requests"), className="span-2"),
            html.Div(made, id="kv-made", className="kv-part"),
            html.Div(sent, id="kv-sent", className="kv-part", style=HIDDEN),
            dcc.Store(id="kv-requests-file", storage_type="session"),
        ],
        className="kv-row kv-requests",
    )


def _manager_row() -> Component:
    items = [
        {"value": manager.name, "label": manager.name, "summary": manager.summary} for manager in MANAGERS.values()
    ]
    managers = dmc.MultiSelect(
        id="kv-managers",
        label="Managers of the memory",
        data=items,
        renderOption={"function": "strategyOption"},
        placeholder="all",
        clearable=True,
        hidePickedOptions=True,
        maxDropdownHeight=340,
        comboboxProps={**_COMBO, "width": 420},
        size="xs",
        **_KEPT,
    )
    sizes = dmc.TagsInput(
        id="kv-block-sizes",
        label=LABELS["block-sizes"],
        value=[str(DEFAULT_BLOCK_SIZE)],
        data=["8", "16", "32", "64", "128", "256"],
        splitChars=[",", " "],
        acceptValueOnBlur=True,
        size="xs",
        **_KEPT,
    )
    return html.Div(
        [
            html.Div(managers, className="span-4"),
            html.Div(sizes, className="span-2"),
            _number("max-length", "", 1, placeholder="the model's", title="The longest sequence, in tokens"),
        ],
        className="kv-row kv-memory",
    )


def _more() -> Component:
    pages = {str(size): format_bytes(size) for size in PAGE_SIZES}
    fields = [
        _select("scheduler", _options({name: SCHEDULER_LABELS[name] for name in SCHEDULERS}), "chunked", "Scheduler"),
        _number("max-requests", _DEFAULT_SCHEDULER.max_requests, 1),
        _number("step-tokens", _DEFAULT_SCHEDULER.max_step_tokens, 1),
        _select("preemption", _plain_options(PREEMPTIONS), "recompute", "When memory runs out"),
        _text("swap", "none", title="Host memory for preempted requests"),
        _select("page", _options(pages), str(PAGE_SIZES[-1]), "Page of virtual"),
        _number("utilisation", round(100 * DEFAULT_UTILISATION), 1, suffix=" %", title="Of the GPU's memory"),
        _text("weight-size", "counted", title="Bytes of the weights on one GPU"),
    ]
    return html.Details(
        [html.Summary("Scheduler, preemption, pages, shares of the memory"), html.Div(fields, className="kv-row")],
        className="kv-more",
    )


def _run_line() -> Component:
    return html.Div(
        [
            html.Button("Run", id="kv-run", className="go kv-run", type="button"),
            html.Button("Cancel", id="kv-cancel", className="go", type="button", style=HIDDEN),
            dmc.Progress(id="kv-meter", value=0, size="sm", style=HIDDEN, className="replay-meter"),
            html.Span(id="kv-progress", role="status"),
            html.Span(id="kv-refusal", className="bad", role="status"),
            html.Span(id="kv-sent-problem", className="bad", role="status"),
        ],
        className="progress-line kv-run-line",
    )


def _with_upload(label: str, field: Component, upload: Component, class_name: str) -> Component:
    head = html.Div([html.Span(label, className="kv-label"), upload], className="kv-label-line")
    return html.Div([head, field], className=class_name)


def _upload(name: str, words: str, accept: str) -> Component:
    return dcc.Upload(
        html.Button(words, type="button", className="link kv-send"),
        id=f"kv-{name}",
        accept=accept,
        max_size=MAX_SENT_BYTES,
    )


def _select(
    name: str, data: list[dict[str, str]], value: str, label: str | None = None, *, searchable: bool = False
) -> Component:
    names = {"label": label} if label is not None else {"aria-label": name.capitalize()}
    return dmc.Select(
        id=f"kv-{name}",
        data=data,
        value=value,
        allowDeselect=False,
        searchable=searchable,
        maxDropdownHeight=340,
        comboboxProps={**_COMBO, "width": "max-content"},
        size="xs",
        **names,
        **_KEPT,
    )


def _number(name: str, value: Any, least: int, *, title: str = "", **others: Any) -> Component:
    return dmc.NumberInput(
        id=f"kv-{name}",
        label=html.Span(LABELS[name], title=title) if title else LABELS[name],
        value=value,
        min=least,
        clampBehavior="none",
        hideControls=True,
        thousandSeparator=",",
        debounce=True,
        size="xs",
        className="kv-number",
        **others,
        **_KEPT,
    )


def _text(name: str, placeholder: str, *, title: str = "") -> Component:
    words = html.Span(LABELS[name], title=title) if title else LABELS[name]
    return dmc.TextInput(
        id=f"kv-{name}", label=words, placeholder=placeholder, debounce=True, size="xs", className="kv-number", **_KEPT
    )


def _options(labels: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"value": value, "label": label} for value, label in labels.items()]


def _plain_options(names: Any) -> list[dict[str, str]]:
    return [{"value": name, "label": name} for name in names]
