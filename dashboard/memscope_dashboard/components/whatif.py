"""Parts of the what-if view: a card for each technique, the table, what is applied together, the plan for a card."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from dash import html
from dash.development.base_component import Component

from memscope.techniques.fit import FitPlan
from memscope.techniques.technique import Cost, Proof
from memscope.techniques.whatif import Peaks, WhatIf, WhatIfs
from memscope.units import format_alike
from memscope.words.labels import sentence
from memscope.words.replay import signed_bytes
from memscope.words.techniques import PROOF_WORDS, cost_words, costs_words, fit_words, refused_words
from memscope_dashboard.components.text import code_line, size, tile
from memscope_dashboard.whatif_board import Applied

NO_COST = "no cost is known"
_PROOF_CLASS: dict[Proof, str] = {"changed-program": "exact", "closed-form": "modelled", "unproved": ""}


def saves_something(result: WhatIf) -> bool:
    """Whether a technique takes memory off one of the peaks."""
    return result.note is None and (result.saved_bytes > 0 or result.saved_allocated_bytes > 0)


def saved(n_bytes: int) -> Component:
    """What is saved, with its exact bytes on hover; below 0 where it takes more."""
    return html.Span(signed_bytes(n_bytes), title=f"{n_bytes:,} bytes", className="num")


def proof_mark(proof: Proof) -> Component:
    """How far a technique is proved."""
    return html.Span(proof, className=f"exactness {_PROOF_CLASS[proof]}", title=PROOF_WORDS[proof])


def proofs_words(found: WhatIfs) -> str:
    """What the words for proofs mean, of those that are used."""
    used = sorted({result.proof for result in found.results})
    return f"{'; '.join(f'{proof}: {PROOF_WORDS[proof]}' for proof in used)}."


def cards(found: WhatIfs, chosen: Collection[str]) -> list[Component]:
    """A card for each technique that changes something, the largest saving first."""
    return [_card(result, result.technique in chosen) for result in found.results if saves_something(result)]


def card_look(name: str, *, is_on: bool) -> tuple[str, str, str, str]:
    """What differs where a technique is applied: the class of its card; word, state and hint of its button."""
    if is_on:
        return "technique-card on", "applied", "true", f"Take {name} out again"
    return "technique-card", "apply", "false", f"See the run with {name}"


def _card(result: WhatIf, is_on: bool) -> Component:
    name = result.technique
    look, word, pressed, hint = card_look(name, is_on=is_on)
    button = html.Button(
        word,
        id={"type": "whatif-toggle", "name": name},
        className="go toggle",
        type="button",
        title=hint,
        **{"aria-pressed": pressed, "aria-label": f"apply {name}"},
    )
    reserved, allocated = (_less(n) for n in (result.saved_bytes, result.saved_allocated_bytes))
    return html.Div(
        [
            html.Code(name, className="card-name"),
            html.Div(
                [size(abs(result.saved_bytes)), html.Span(f"{reserved} reserved", className="quiet small")],
                className="card-saved",
            ),
            html.Div(
                [size(abs(result.saved_allocated_bytes)), f" {allocated} allocated, each at its peak"],
                className="quiet small",
            ),
            html.Div([costs_words(result) or NO_COST], className="card-cost"),
            html.Div([proof_mark(result.proof), button], className="card-foot"),
        ],
        id={"type": "whatif-card", "name": name},
        className=look,
    )


def _less(saved_bytes: int) -> str:
    return "more" if saved_bytes < 0 else "less"


def others(found: WhatIfs) -> list[Component]:
    """Techniques without a card: those that take nothing off, and those that do not apply, with why; folded up."""
    rest = [result for result in found.results if not saves_something(result)]
    parts: list[Component] = []
    if rest:
        items = [html.Li([html.Code(result.technique), f" {_why_not(result)}"]) for result in rest]
        parts.append(html.Details([html.Summary(f"{len(rest)} take nothing off"), html.Ul(items, className="notes")]))
    refused = refused_words(found.not_applicable)
    if refused:
        items = [html.Li(words) for words in refused]
        n = len(found.not_applicable)
        parts.append(html.Details([html.Summary(f"{n} do not apply to this run"), html.Ul(items, className="notes")]))
    return parts


def _why_not(result: WhatIf) -> str:
    if result.note is not None:
        return result.note
    if result.saved_bytes < 0:
        return f"{signed_bytes(-result.saved_bytes)} more reserved at the peak"
    return "the peaks stay as they are"


def results_table(results: Sequence[WhatIf], baseline: Peaks) -> Component:
    """Every technique with its numbers, as the command line has them."""
    head = ("technique", "saves", "peak reserved", "peak allocated", "costs", "proof")
    rows = [html.Tr([html.Td("as it is"), *_numbers(None, baseline), html.Td(), html.Td()])]
    rows += [
        html.Tr(
            [
                html.Td(html.Code(result.technique)),
                *_numbers(result.saved_bytes, result.peaks),
                html.Td(costs_words(result) or result.note or "", className="wrap"),
                html.Td(proof_mark(result.proof)),
            ]
        )
        for result in results
    ]
    top = html.Thead(html.Tr([html.Th(name, className="num" if name in head[1:4] else "") for name in head]))
    return html.Table([top, html.Tbody(rows)], className="small-table whatif-table")


def _numbers(saved_bytes: int | None, peaks: Peaks) -> list[Component]:
    cells: list[Any] = [
        "" if saved_bytes is None else saved(saved_bytes),
        size(peaks.reserved_bytes),
        size(peaks.allocated_bytes),
    ]
    return [html.Td(cell, className="num") for cell in cells]


def tiles(applied: Applied) -> list[Component]:
    """What the techniques make of both peaks, what they cost, and how far that is proved."""
    result = applied.result
    reserved = result.peaks.reserved_bytes + result.saved_bytes, result.peaks.reserved_bytes
    allocated = result.peaks.allocated_bytes + result.saved_allocated_bytes, result.peaks.allocated_bytes
    words = costs_words(result) or NO_COST
    return [
        tile("Saved of peak reserved", saved(result.saved_bytes), " → ".join(format_alike(*reserved))),
        tile("Saved of peak allocated", saved(result.saved_allocated_bytes), " → ".join(format_alike(*allocated))),
        tile("Costs", html.Span(words, className="tile-text"), ""),
        tile("Proof", html.Span(result.proof, className="tile-words"), PROOF_WORDS[result.proof]),
    ]


def recipe(applied: Applied) -> list[Component]:
    """What to write for each technique, in the order in which they are applied, and what was assumed."""
    items = []
    for one in applied.changes:
        parts: list[Any] = [html.Div([html.Code(one.technique), f" {_cost_or_note(one.cost, one.note)}"])]
        if one.how and one.note is None:
            parts.append(code_line(one.how))
        items.append(html.Li(parts))
    found: list[Component] = [html.H3("What to write"), html.Ol(items, className="changes")]
    if applied.result.assumes:
        assumed = [html.Li(sentence(text)) for text in applied.result.assumes]
        found += [html.H3("What is assumed"), html.Ul(assumed, className="notes quiet")]
    return found


def _cost_or_note(cost: Cost, note: str | None) -> str:
    if note is not None:
        return note
    words = cost_words(cost)
    return f"costs {words}" if words else ""


def plan_panel(plan: FitPlan, *, is_applied: bool) -> list[Component]:
    """The cheapest plan for a card, step by step, with the way to see the run with it."""
    button = html.Button(
        "applied" if is_applied else "Apply this plan",
        id={"type": "whatif-plan", "name": " ".join(plan.techniques)},
        className="go",
        type="button",
        disabled=is_applied,
    )
    verdict = sentence(fit_words(plan))
    head = html.Div([html.P(f"{verdict}.", className="verdict"), button if plan.steps else None], className="plan-head")
    parts: list[Component] = [head]
    items = []
    for step in plan.steps:
        left = size(step.peaks.reserved_bytes)
        words: list[Any] = [html.Code(step.technique), " ", saved(step.saved_bytes), " less, ", left]
        cost = costs_words(step)
        words += [f" reserved at the peak{f'; costs {cost}' if cost else ''} ", proof_mark(step.proof)]
        items.append(html.Li([html.Div(words), *[code_line(how) for how in step.hows if how]]))
    if items:
        parts.append(html.Ol(items, className="changes"))
    return parts
