"""Categories from stacks alone, on recordings of PyTorch's own allocator whose owners the recorder saw.

Unlike a dry run's, these have the threads of the autograd engine, and their allocations without a Python stack.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID, Action
from tests.attribution.from_stacks import classify_peak
from tests.emulated.conftest import PROGRAMS, run_memscope

pytestmark = pytest.mark.emulated
LEAST_RIGHT = {
    "llama, AdamW foreach": 0.95,
    "GPT-2, AdamW loop": 0.95,
    "llama, checkpointing": 0.95,
    "GPT-2, generate": 0.98,
    "llama, static cache": 0.95,
}
GENERATES = ("GPT-2, generate", "llama, static cache")
"""Programs without a backward pass, and so without the threads of one."""


@pytest.mark.parametrize("name", list(LEAST_RIGHT))
def test_stacks_alone_tell_the_peak_of_a_recording(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    ended = run_memscope("run", "--emulate", "-o", path, PROGRAMS / "attribution_workload.py", name)
    assert ended.code == 0, ended.err
    trace = open_trace(path)
    if name not in GENERATES:
        assert (trace.stack_id[trace.action == Action.ALLOC] == NONE_ID).mean() > 0.1
    verdict = classify_peak(trace, as_on_cuda=False)
    assert verdict.right_frac >= LEAST_RIGHT[name]
    assert verdict.untold_bytes <= 0.1 * verdict.confusion.sum()
