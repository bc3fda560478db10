"""The public surface, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import memscope
from memscope import errors
from memscope.trace.open import open_trace
from memscope.trace.snapshot.write import write_snapshot

TRACES = Path(__file__).resolve().parents[1] / "traces"

_HEAVY = ("torch", "pandas", "plotly", "dash", "pyarrow", "transformers", "pynvml")


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out.splitlines()[-1]))


def test_every_public_name_is_there_and_sorted() -> None:
    assert memscope.__all__ == sorted(memscope.__all__)
    assert dir(memscope) == memscope.__all__
    for name in memscope.__all__:
        assert getattr(memscope, name) is not None


def test_importing_memscope_imports_nothing_heavy() -> None:
    assert not _modules_after("import memscope") & set(_HEAVY)


def test_the_help_imports_nothing_heavy() -> None:
    statement = (
        "from click.testing import CliRunner; from memscope.cli.main import cli; "
        "r = CliRunner().invoke(cli, ['--help']); assert r.exit_code == 0, r.output"
    )
    assert not _modules_after(statement) & {*_HEAVY, "numpy", "rich"}


@pytest.mark.parametrize("verb", ["report", "peak", "frag", "oom", "verify", "tune", "replay"])
def test_a_text_answer_about_a_trace_imports_nothing_that_it_does_not_use(verb: str, tmp_path: Path) -> None:
    trace = open_trace(TRACES / "tiny-out-of-memory.memscope")
    snapshot = write_snapshot(trace, tmp_path / "a.pickle")
    statement = (
        "from click.testing import CliRunner; from memscope.cli.main import cli; "
        f"r = CliRunner().invoke(cli, [{verb!r}, {str(snapshot)!r}]); assert r.exit_code in (0, 2), r.output"
    )
    assert not _modules_after(statement) & {*_HEAVY, "joblib", "asyncio"}


def test_reading_a_trace_imports_no_pandas() -> None:
    statement = f"from memscope.trace.open import open_trace; open_trace({str(TRACES / 'tiny-llama-train.memscope')!r})"
    assert not _modules_after(statement) & {"pandas", "pyarrow.compute"}


def test_analysing_a_trace_does_not_import_torch() -> None:
    assert not _modules_after("import memscope; memscope.load") & {"torch", "transformers", "pynvml", "plotly", "dash"}


def test_the_error_tree_is_the_documented_one() -> None:
    documented = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__:
            assert name in documented
    assert errors.ContradictionError.exit_code == 3
    assert errors.BudgetExceededError.exit_code == 2
    assert errors.UsageError.exit_code == errors.InputFileError.exit_code == 1
