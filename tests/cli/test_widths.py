"""Every verb that prints a table, at the widths of terminals: nothing that counts is cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Run = Callable[..., Outcome]

TRACES = Path(__file__).resolve().parents[2] / "traces"
TRAIN, GENERATE, FULL = (TRACES / f"tiny-{name}.memscope" for name in ("llama-train", "gpt2-generate", "out-of-memory"))
VERBS: dict[str, tuple[object, ...]] = {
    "report": ("report", TRAIN),
    "report-oom": ("report", FULL),
    "report-two": ("report", TRAIN, GENERATE),
    "peak": ("peak", TRAIN),
    "peak-module": ("peak", TRAIN, "--by", "module"),
    "frag": ("frag", TRAIN, "--over-time"),
    "oom": ("oom", FULL),
    "diff": ("diff", TRAIN, GENERATE),
    "check": ("check", TRAIN, "--max-peak", "10MiB", "--baseline", GENERATE),
    "sql": ("sql", TRAIN, "select action, count(*) as n, sum(size_bytes) as size_bytes from events group by all"),
    "sql-views": ("sql", TRAIN, "--views"),
    "verify": ("verify", TRAIN),
    "replay": ("replay", TRAIN, "--conf", "expandable_segments:True,garbage_collection_threshold:0.8", "--explain"),
    "tune": ("tune", FULL, "--top", "3"),
    "whatif": ("whatif", TRAIN, "--all"),
    "whatif-list": ("whatif", "--list"),
    "kv": ("kv", GENERATE),
    "serving": ("serving", "--config", "llama-3-8b", "--generate", "50", "--rate", "40"),
    "doctor": ("doctor",),
}
_NUMBER = re.compile(r"[+−-]?\d[\d,]*(?:\.\d+)? ?(?:[KMGT]iB|B|%|[nµm]?s)(?!\w)")
_SETTING = re.compile(r"[a-z0-9_]+:[A-Za-z0-9.]+")


@pytest.fixture
def at(memscope: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a verb prints into a pipe at a width."""

    def run(verb: str, width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        return memscope(*VERBS[verb]).out

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_no_number_and_no_setting_is_cut(at: Callable[..., str], verb: str) -> None:
    wide = at(verb, 400)
    whole = {*_NUMBER.findall(wide), *_SETTING.findall(wide)}
    for width in (60, 80, 100, 120):
        text = at(verb, width)
        assert "…" not in text
        shown = re.sub(r"not shown in \d+ columns", "", text)
        found = {*_NUMBER.findall(shown), *_SETTING.findall(shown)}
        assert found <= whole, (width, found - whole)
        too_long = [line for line in text.splitlines() if len(line.rstrip()) > width]
        assert not [line for line in too_long if not line.startswith("export ") and "PYTORCH" not in line], width


def test_a_pipe_without_a_width_has_whole_lines(memscope: Run) -> None:
    text = memscope("report", TRAIN).out
    assert any(len(line) > 120 for line in text.splitlines())
    assert "not shown in" not in text
