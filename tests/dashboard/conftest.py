"""A store with two small traces, and its app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dash import Dash
from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore

from memscope.trace.container import write_container
from tests.naive_layout import random_layout
from tests.training_trace import training_trace

WAIT_S = 120
"""A replay at work when the tests end is waited for: it may be compiling."""


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


@pytest.fixture(autouse=True)
def _idle(store: TraceStore) -> Iterator[None]:
    """No test pays for the replays that another one began."""
    yield
    store.jobs.cancel()
