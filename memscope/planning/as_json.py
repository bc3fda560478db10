"""The object of ``memscope estimate --json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from memscope.planning.estimate import Estimate
from memscope.planning.plan import Plan
from memscope.planning.solve import Solved
from memscope.reports.json import ledger_json


def estimate_json(found: Estimate, solved: Solved | None = None) -> dict[str, Any]:
    """What a plan takes, on the first card and on each; with ``solved``, what was asked for."""
    first = found.cards[0]
    content: dict[str, Any] = {
        "plan": plan_json(found.plan),
        "gpu": first.name,
        "fits": first.fits,
        "capacity_bytes": first.capacity_bytes,
        "spare_bytes": first.spare_bytes,
        "n_retries": first.n_retries,
        "peak_allocated_bytes": found.peak_allocated_bytes,
        "peak_reserved_bytes": found.peak_reserved_bytes,
        "ledger": ledger_json(found.device.peak()),
        "gpus": [{**asdict(card), "spare_bytes": card.spare_bytes} for card in found.cards],
        "notes": list(found.device.trace.metadata.notes),
    }
    if solved is not None:
        content["solved"] = {
            "name": solved.name,
            "value": solved.value,
            "confirmed": solved.confirmed,
            "n_runs": solved.n_runs,
            "note": solved.note,
        }
    return content


def plan_json(plan: Plan) -> dict[str, Any]:
    """What was asked."""
    return {
        "model": plan.config.name,
        "source": plan.config.source,
        "mode": plan.mode,
        "batch": plan.n_samples,
        "seq": plan.n_tokens,
        "dtype": plan.dtype,
        "optimizer": plan.optimizer if plan.mode == "train" else None,
        "new_tokens": plan.n_new_tokens if plan.mode == "generate" else None,
        "checkpointing": plan.checkpoints,
        "attention": plan.attention,
    }
