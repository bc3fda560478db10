"""A store with two small traces, and its app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dash import Dash
from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore

from memscope.trace.container import write_container
from tests.dashboard.pages import FITTING, OUT_OF_MEMORY
from tests.kv_cache.serving_program import Program, serving_trace
from tests.naive_layout import random_layout
from tests.training_trace import training_trace

TRACES = Path(__file__).resolve().parents[2] / "traces"
WAIT_S = 240
"""A replay at work when the tests end is waited for."""


@pytest.fixture(scope="session")
def trace_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("traces")
    return [
        write_container(training_trace(), folder / "train.memscope"),
        write_container(random_layout(5, 60).trace(), folder / "other.memscope"),
    ]


@pytest.fixture(scope="session")
def store(trace_files: list[Path]) -> Iterator[TraceStore]:
    store = TraceStore(trace_files)
    yield store
    store.close(WAIT_S)


@pytest.fixture(scope="session")
def app(store: TraceStore) -> Dash:
    return create_app(store)


@pytest.fixture
def board_store(trace_files: list[Path]) -> Iterator[TraceStore]:
    """A store of its own, for tests that count what is replayed."""
    store = TraceStore(trace_files)
    yield store
    store.close(WAIT_S)


@pytest.fixture(scope="module")
def shipped() -> Iterator[TraceStore]:
    """A training that ran out of memory, and one that did not."""
    store = TraceStore([TRACES / OUT_OF_MEMORY, TRACES / FITTING])
    yield store
    store.close(WAIT_S)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceStore]:
    """A key/value cache that grows, a training, and an engine's own pool."""
    folder = tmp_path_factory.mktemp("serving")
    pool = Program()
    pool.malloc(1 << 30, "the engine's")
    store = TraceStore(
        [
            write_container(serving_trace(), folder / "serving.memscope"),
            write_container(training_trace(), folder / "train.memscope"),
            write_container(pool.trace(), folder / "pool.memscope"),
        ]
    )
    yield store
    store.close(WAIT_S)


@pytest.fixture(autouse=True)
def _idle(store: TraceStore) -> Iterator[None]:
    """No test pays for the replays that another one began."""
    yield
    store.jobs.cancel()
