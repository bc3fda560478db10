"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import pytest

from memscope.cli.main import main

# What a shell runs in the background ignores interrupts and hands that on: programs that end by one would hang tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Reports are as wide as this says; readline sets it where a worker imports it.
os.environ.pop("COLUMNS", None)

if importlib.util.find_spec("hypothesis"):  # the emulated environments, which test capture only, have none
    from hypothesis import HealthCheck, settings

    # A busy machine is no fault of what is tested.
    _PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    # The same examples on every machine: what is green on one is green on all.
    settings.register_profile("open", derandomize=True, **_PATIENT)
    # Other examples each time, and more of them. What it finds it prints, to become a test of its own.
    settings.register_profile("long", max_examples=300, print_blob=True, **_PATIENT)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "open"))


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    """Leave to the collector what a file's own tests make: a recording that ends looks at everything it knows."""
    gc.collect()
    gc.freeze()


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def memscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the program in this process, as if from a shell: what it does to its environment ends with it."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["memscope", *map(str, arguments)])
        with mock.patch.dict(os.environ), pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Outcome(exit_.value.code or 0, captured.out, captured.err)  # type: ignore[arg-type]

    return run
