"""The object of ``memscope estimate --json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from memscope.planning.estimate import Estimate
from memscope.planning.plan import Plan
from memscope.planning.script import Fitted
from memscope.planning.solve import Solved
from memscope.reports.json import ledger_json


def estimate_json(found: Estimate, solved: Solved | None = None) -> dict[str, Any]:
    """What a plan takes on one card, ``gpu``, and how it fits each; with ``solved``, what was asked for."""
    card = found.card
    content: dict[str, Any] = {
        "plan": plan_json(found.plan),
        "gpu": card.name,
        "fits": card.fits,
        "capacity_bytes": card.capacity_bytes,
        "spare_bytes": card.spare_bytes,
        "n_retries": card.n_retries,
        "peak_allocated_bytes": found.peak_allocated_bytes,
        "peak_reserved_bytes": found.peak_reserved_bytes,
        "ledger": ledger_json(found.device.peak()),
        "gpus": [{**asdict(each), "spare_bytes": each.spare_bytes} for each in found.cards],
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


def fitted_json(found: Fitted) -> dict[str, Any]:
    """The object of ``memscope fit --json``; ``value`` is null where the least does not fit."""
    return {
        "argument": found.argument,
        "gpu": found.gpu,
        "capacity_bytes": found.capacity_bytes,
        "value": found.value,
        "confirmed": found.confirmed,
        "changes_memory": found.changes_memory,
        "note": found.note,
        "runs": [asdict(trial) for trial in found.trials],
    }
