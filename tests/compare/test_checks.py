"""Several checks in one TOML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.compare.baseline import Tolerance
from memscope.compare.checks import Check, read_checks
from memscope.errors import InputFileError, UsageError
from memscope.units import GiB, MiB


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "checks.toml"
    path.write_text(text)
    return path


def test_each_table_is_a_check_and_files_are_named_from_its_folder(tmp_path: Path) -> None:
    text = """
[[check]]
name = "train"
trace = "runs/train.memscope"
max_peak = "24GiB"
max_reserved = 1048576
baseline = "base.json"
tolerance = "2%"
device = 1
allow_partial = true

[[check]]
trace = "generate.memscope"
max_peak = "1GiB"
"""
    first, second = read_checks(written(tmp_path, text))
    assert first == Check(
        name="train",
        trace=tmp_path / "runs/train.memscope",
        device=1,
        max_peak_bytes=24 * GiB,
        max_reserved_bytes=MiB,
        baseline=tmp_path / "base.json",
        tolerance=Tolerance(frac=0.02),
        allow_partial=True,
    )
    assert (second.name, second.tolerance, second.allow_partial) == ("generate.memscope", Tolerance(frac=0.01), False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no checks"),
        ("check = 3", "has no checks"),
        ("[[check", "not a readable TOML file"),
        ("[[check]]\nmax_peak = '1GB'", "names no trace"),
        ("[[check]]\ntrace = 'a'", "nothing to check"),
        ("[[check]]\ntrace = 'a'\nmax_peek = '1GB'", "did you mean 'max_peak'"),
        ("[[check]]\ntrace = 'a'\nmax_peak = 'lots'", "is not a size"),
        ("[[check]]\ntrace = 'a'\nmax_peak = -1", "max_peak"),
        ("[[check]]\ntrace = 'a'\nmax_peak = '1GB'\ntolerance = 'x'", "is no tolerance"),
        ("[[check]]\ntrace = 7\nmax_peak = '1GB'", "trace"),
        ("[[check]]\ntrace = 'a'\nmax_peak = '1GB'\ndevice = true", "device"),
        ("[other]\n[[check]]\ntrace = 'a'\nmax_peak = '1GB'", "'other' beside its checks"),
        ("[[check]]\ntrace = 'a'\nmax_peak = 1\n[[check]]\ntrace = 'a'\nmax_peak = 2", "two checks called 'a'"),
    ],
)
def test_what_no_check_has_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputFileError, match=words) as refused:
        read_checks(path)
    assert str(refused.value).startswith(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        read_checks(tmp_path / "nowhere.toml")


def test_a_check_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to check"):
        Check("run", Path("run.memscope"))
