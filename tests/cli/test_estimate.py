"""``memscope estimate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome
from tests.planning.models import LLAMA

Run = Callable[..., Outcome]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    return path


def test_what_does_not_fit_is_an_answer(memscope: Run, config: Path) -> None:
    asked = ("--config", config, "--mode", "train", "--seq", "64", "--gpu", "600MiB", "--gpu", "A100-40GB")
    answer = memscope("estimate", *asked, "--json")
    content = json.loads(answer.out)
    assert (answer.code, content["schema_version"]) == (0, 1)
    assert [(gpu["name"], gpu["fits"]) for gpu in content["gpus"]] == [("600MiB", True), ("A100-40GB", True)]
    smaller = json.loads(memscope("estimate", *asked[:-4], "--gpu", "530MiB", "--json").out)
    assert smaller["fits"] is False


def test_a_batch_is_solved(memscope: Run, config: Path) -> None:
    asked = ("--config", config, "--mode", "train", "--seq", "64", "--gpu", "640MiB", "--solve", "batch")
    content = json.loads(memscope("estimate", *asked, "--json").out)
    assert content["solved"]["confirmed"] is True
    assert content["plan"]["batch"] == content["solved"]["value"]
    assert content["fits"] is True


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--mode", "train", "--gpu", "nothing"), "'nothing' is not a known GPU"),
        (("--mode", "train", "--solve", "batch", "--gpu", "T4", "--gpu", "L4"), "--solve batch is for one card"),
        (("--mode", "train", "--gpu", "300MiB"), "300MiB: PyTorch can have nothing of a card of that size"),
        (("--mode", "train", "--batch", "0"), "batch 0: choose from 1"),
        (("--mode", "trian"), "--mode: there is no 'trian': did you mean 'train'?"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(
    memscope: Run, config: Path, options: tuple[str, ...], reason: str
) -> None:
    answer = memscope("estimate", "--config", config, *options)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"memscope: {reason}")
    assert answer.err.count("\n") == 1


def test_a_file_that_is_none_is_said(memscope: Run) -> None:
    answer = memscope("estimate", "--config", "no-such.json", "--mode", "train")
    assert (answer.code, answer.out) == (1, "")
    assert "there is no such file, and no preset of that name" in answer.err
