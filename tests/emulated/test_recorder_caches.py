"""Each kind of transformers' caches in a recording of PyTorch's own allocator: named, described, measured."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from memscope.attribution.attribution import attribute
from memscope.attribution.ledger import ledger_at
from memscope.emulation.launch import EmulatedMachine
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.open import open_trace
from tests.capture.cache_rows import EXPECTED, check_rows
from tests.emulated.conftest import ADAPTED, PROGRAMS, environment_of, run_python

pytestmark = pytest.mark.emulated
_CANNOT_RUN = {
    "quanto": True,  # compiles kernels of its own for CUDA at its first use
    "hqq": find_spec("hqq") is None,  # is there where the user has it
    "static compiled": version("torch").startswith("2.6."),  # its compiler gives up on transformers, recorded or not
}
_NAMES = [name for name in EXPECTED if not _CANNOT_RUN.get(name)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The folder with each program's trace, and the bytes that each one's cache held at the end."""
    folder = tmp_path_factory.mktemp("caches")
    machine = EmulatedMachine("NVIDIA L4", 24 << 30, 300 << 20, (8, 9), 58)
    ended = run_python(
        "-c", ADAPTED, PROGRAMS / "recorder_caches.py", folder, *_NAMES, environment=environment_of(machine)
    )
    assert ended.code == 0, ended.err
    return folder, json.loads((folder / "held.json").read_text())


@pytest.mark.parametrize("name", _NAMES)
def test_every_byte_of_a_cache_is_named_its_layers_described_its_lengths_noted(
    recorded: tuple[Path, dict[str, int]], name: str
) -> None:
    folder, held = recorded
    trace = open_trace(folder / f"{name}.memscope")
    assert trace.metadata.n_events_lost == 0
    lifetimes = DeviceLifetimes(trace, 0)
    ledger = ledger_at(lifetimes, attribute(lifetimes), lifetimes.last_event)
    assert ledger["kv_cache"] == held[name] > 0
    check_rows(trace, EXPECTED[name])
