"""The largest value of a script's argument that fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.errors import UsageError
from memscope.gpus import find_gpu
from memscope.planning import script
from memscope.planning.as_text import fitted_words
from memscope.planning.script import Trial, fit_script, with_value

MiB = 1 << 20
TAKES = "import sys, torch\nx = torch.empty(int(sys.argv[2]) * {mib} << 20, dtype=torch.uint8, device='cuda')\n"


@pytest.mark.parametrize(
    ("arguments", "argument", "expected"),
    [
        (["--steps", "3"], "--batch", ["--steps", "3", "--batch", "5"]),
        (["--batch", "8", "--steps", "3"], "--batch", ["--batch", "5", "--steps", "3"]),
        (["--batch=8"], "--batch", ["--batch=5"]),
        (["train.batch=8", "x=1"], "train.batch=", ["train.batch=5", "x=1"]),
        (["--batch-size", "8"], "--batch", ["--batch-size", "8", "--batch", "5"]),
        (["--batch"], "--batch", ["--batch", "--batch", "5"]),
    ],
)
def test_a_value_takes_the_place_of_the_one_that_is_there(arguments, argument, expected):
    assert with_value(arguments, argument, 5) == expected


@pytest.mark.parametrize(("least", "most", "expected"), [(1, 1 << 20, 1234), (7, 1 << 20, 1234), (1, 900, 900)])
def test_the_border_is_found_in_few_runs_and_confirmed(monkeypatch, least, most, expected):
    gpu = find_gpu("24GiB")

    def run(_target, arguments, value, card):
        assert arguments == ["--n", str(value)]
        needed = card.usable_bytes * value // 1234
        fits = value <= 1234
        # Of a run that runs out no more is known than what it had and the request that failed.
        return Trial(value, fits, needed, needed, needed if fits else card.usable_bytes + MiB)

    monkeypatch.setattr(script, "_run", run)
    found = fit_script(["train.py"], [], "--n", gpu, least=least, most=most)
    assert found.value == expected
    assert found.confirmed == (expected == 1234)
    assert len({trial.value for trial in found.trials}) == len(found.trials) <= 12
    assert (found.note is None) == found.confirmed


@pytest.mark.parametrize("step_bytes", [1, 2 * MiB, 20 * MiB])
@pytest.mark.parametrize("border", [3, 100, 5432, 99_999])
def test_runs_are_few_though_reserved_memory_goes_in_steps(monkeypatch, step_bytes, border):
    gpu = find_gpu("24GiB")

    def run(_target, _arguments, value, card):
        fits = value <= border
        needed = card.usable_bytes // 8 + (card.usable_bytes * 7 // 8) * value // border
        needed = min(-(-needed // step_bytes) * step_bytes, card.usable_bytes)
        return Trial(value, fits, needed, needed, needed if fits else card.usable_bytes + MiB)

    monkeypatch.setattr(script, "_run", run)
    found = fit_script(["train.py"], [], "--n", gpu)
    assert (found.value, found.confirmed) == (border, True)
    assert len(found.trials) <= 13


def test_where_the_least_does_not_fit_nothing_more_is_tried(monkeypatch):
    monkeypatch.setattr(script, "_run", lambda _target, _arguments, value, _card: Trial(value, False, 0, 0, MiB))
    found = fit_script(["train.py"], [], "--n", find_gpu("24GiB"), least=4)
    assert (found.value, [trial.value for trial in found.trials]) == (None, [4])


def test_bounds_that_are_none_are_refused():
    with pytest.raises(UsageError, match="choose bounds from 0 to"):
        fit_script(["train.py"], [], "--n", find_gpu("24GiB"), least=3, most=2)


def test_a_script_is_run_dry_on_the_card(tmp_path: Path):
    path = tmp_path / "takes.py"
    path.write_text(TAKES.format(mib=20))
    # Of 600 MiB the context has 512, and 88 are left: four of 20.
    found = fit_script([str(path)], [], "--n", find_gpu("600MiB"))
    assert (found.value, found.confirmed) == (4, True)
    assert all(trial.fits == (trial.value <= 4) for trial in found.trials)
    assert {4, 5} <= {trial.value for trial in found.trials}
    assert next(trial for trial in found.trials if trial.value == 4).peak_allocated_bytes == 80 * MiB
    assert not list(tmp_path.glob("*.memscope"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit('no such layer')", "exit code 1, and not for want of memory: no such layer"),
        ("import torch\n", "asked for no memory of a CUDA device"),
    ],
)
def test_what_ends_for_another_reason_is_said(tmp_path: Path, text, reason):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=reason):
        fit_script([str(path)], [], "--n", find_gpu("600MiB"))


def _trials(monkeypatch, needed_of):
    def run(_target, _arguments, value, card):
        needed = needed_of(value)
        return Trial(value, needed <= card.usable_bytes, needed, needed, needed)

    monkeypatch.setattr(script, "_run", run)


def test_an_argument_that_changes_nothing_is_not_called_the_most_that_fits(monkeypatch):
    _trials(monkeypatch, lambda _: 100 * MiB)
    found = fit_script(["train.py"], [], "--lr", find_gpu("2GiB"))
    assert len(found.trials) == 3
    assert (found.changes_memory, found.confirmed) == (False, False)
    assert "--lr changes nothing in what the script needs" in fitted_words(found)


def test_runs_in_which_more_needs_less_are_said(monkeypatch):
    _trials(monkeypatch, lambda value: 1024 * MiB // value)
    found = fit_script(["train.py"], [], "--chunks", find_gpu("2GiB"), least=2, most=64)
    assert found.changes_memory
    assert "needs less than" in (found.note or "")
    assert "others may fit" in fitted_words(found)


def test_a_least_value_that_does_not_fit_is_no_answer(monkeypatch):
    _trials(monkeypatch, lambda value: value * 1024 * MiB)
    found = fit_script(["train.py"], [], "--n", find_gpu("2GiB"), least=8)
    assert (found.value, found.confirmed, found.changes_memory) == (None, False, None)
    assert "--from" in fitted_words(found)
