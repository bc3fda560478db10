"""``memscope run --emulate``: which options are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Outcome


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--emulate", "--devices", 0), "0 emulated devices: choose from 1 to 16"),
        (("--emulate", "--compute-capability", "9"), "'9' is no compute capability"),
        (("--emulate", "--gpu", "1GiB", "--overhead", "2GiB"), "nothing is left"),
        (("--emulate", "--event-latency", -1), "cannot be negative"),
        (("--emulate", "--gpu", "H1000"), "is not a known GPU"),
        (("--emulate", "--dry-run"), "choose one"),
        (("--dry-run", "--devices", 2), "--devices is for --emulate"),
        (("--overhead", "1GiB"), "--overhead is for --emulate"),
        (("--gpu", "T4-16GB"), "--gpu and --conf are for --dry-run and --emulate"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    options: tuple[object, ...],
    words: str,
    memscope: Callable[..., Outcome],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(str(tmp_path))
    outcome = memscope("run", *options, "train.py")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert words in outcome.err
