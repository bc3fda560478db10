"""What the simulation's controls ask for."""

from __future__ import annotations

from memscope_dashboard.kv_asked import DEFAULT_N_REQUESTS, asked_of
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import kv_simulation as view

from memscope.serving.managers import MANAGERS
from memscope.units import GiB


def test_defaults_answer_with_every_default_manager(board_store: TraceStore) -> None:
    asked, errors = asked_of({"model": "llama-3-8b"})
    assert not errors
    assert asked is not None
    jobs = view.board_of(board_store).plan(asked).jobs
    assert [job.manager for job in jobs] == [name for name, manager in MANAGERS.items() if manager.is_default]
    assert len(jobs[0].requests) == DEFAULT_N_REQUESTS
    bigger, _ = asked_of({"model": "llama-3-8b", "capacity": "40GiB", "preemption": "swap", "swap": "8GiB"})
    assert bigger is not None
    assert (bigger.capacity_bytes, bigger.scheduler.swap_bytes) == (40 * GiB, 8 * GiB)


def test_block_sizes_are_left_out_where_no_manager_has_blocks() -> None:
    asked, _ = asked_of({"model": "gpt2", "managers": ["radix"], "block-sizes": ["16", "32"]})
    assert asked is not None
    assert asked.block_sizes == ()
