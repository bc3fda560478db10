"""Values that a program reads back on the emulated device."""

from __future__ import annotations

import pytest

from tests.emulated.conftest import PROGRAMS, run_memscope

pytestmark = pytest.mark.emulated


def test_what_is_made_of_known_numbers_reads_as_it_would_on_a_gpu(tmp_path: object) -> None:
    ended = run_memscope(
        "run", "--emulate", "--gpu", "16GiB", "-o", f"{tmp_path}/run.memscope", PROGRAMS / "known_values.py"
    )
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        "mask True True",
        "packed False",
        "batch 66 [4, 5, 6, 7]",
        "loss True",
        "written [1, 2, 2]",
        "forgotten [0, 0]",
        "loaded ['batch', 'bias', 'num_batches_tracked', 'running_mean', 'running_var', 'weight'] [4, 5, 6, 7]",
    ]
