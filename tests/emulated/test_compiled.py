"""What ``torch.compile`` compiles asks for memory as its own code says, and kernels of Triton are launched."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import Analysis, load
from memscope.emulation.launch import RAN_EAGERLY, WAS_COMPILED
from tests.emulated.conftest import PROGRAMS, run_memscope


def _trained(folder: Path, *how: str) -> Analysis:
    path = folder / f"{''.join(how) or 'eager'}.memscope"
    ended = run_memscope("run", "--emulate", "-o", path, PROGRAMS / "compiled.py", folder / "evidence", *how)
    assert ended.code == 0, ended.err
    assert run_memscope("verify", path).code == 0
    return load(path)


def _activation_bytes(analysis: Analysis) -> int:
    return analysis.device(0).peak().ledger["activations"]


@pytest.mark.emulated
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_a_compiled_program_keeps_less_than_an_eager_one(tmp_path: Path) -> None:
    eager, compiled = _trained(tmp_path), _trained(tmp_path, "compiled")
    assert 0 < _activation_bytes(compiled) < 0.75 * _activation_bytes(eager)
    files = {
        frame.filename
        for stack in np.unique(compiled.trace.stack_id[compiled.trace.stack_id >= 0]).tolist()
        for frame in compiled.trace.stack(stack)
    }
    assert any("torch/_inductor/" in name for name in files)
    assert WAS_COMPILED in compiled.trace.metadata.notes
    assert WAS_COMPILED not in eager.trace.metadata.notes
    assert RAN_EAGERLY not in compiled.trace.metadata.notes
