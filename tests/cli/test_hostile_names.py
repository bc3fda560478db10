"""Every verb on traces whose every name, that of the file included, would steer a terminal or be read as markup."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.container import write_container
from tests.conftest import Outcome
from tests.hostile_trace import SHOWN, with_hostile_names
from tests.kv_cache.serving_program import serving_trace
from tests.training_trace import training_trace

FILE_NAME = "<svg onload=alert(3)>\x1b[31m\u202e\n fake.memscope"
TRAIN, SERVING, OUT = "TRAIN", "SERVING", "OUT"
TEXTS: tuple[tuple[str, ...], ...] = (
    ("report", TRAIN),
    ("report", SERVING),
    ("report", TRAIN, SERVING),
    *(("peak", TRAIN, "--by", by) for by in ("category", "site", "module", "kind", "step", "tag", "rule")),
    ("frag", TRAIN, "--over-time"),
    ("oom", TRAIN),
    ("verify", TRAIN),
    ("verify", SERVING),
    ("replay", TRAIN, "--strategy", "lower-bound", "--strategy", "caching"),
    ("tune", SERVING),
    ("whatif", TRAIN, "--all"),
    ("whatif", SERVING, "--all"),
    ("kv", SERVING),
    *(("diff", TRAIN, SERVING, "--by", by) for by in ("holder", "owner", "site", "module", "category")),
    ("diff", TRAIN, "--steps", "0:2"),
    ("check", TRAIN, "--max-peak", "1MB", "--allow-partial"),
    ("check", TRAIN, "--max-peak", "1MB", "--allow-partial", "--github"),
    ("check", TRAIN, "--max-peak", "1MB"),
    ("sql", TRAIN, "select * from allocations"),
    ("sql", TRAIN, "select * from frames"),
    ("slice", TRAIN, "--events", "10:50", "-o", f"{OUT}.memscope"),
    ("redact", TRAIN, "-o", f"{OUT}.memscope", "--kept"),
    ("import", TRAIN, "-o", f"{OUT}.memscope"),
    ("baseline", TRAIN, "-o", f"{OUT}.json"),
)
"""Verbs and their arguments."""
NARROW = [words for words in TEXTS if words[0] in ("report", "oom", "diff") or words[-1] == "site"]
NAMELESS = {"replay", "tune", "verify", "import", "redact", "slice", "baseline", "check", "whatif"}
"""What says little but sizes: whose names it holds depends on what is found."""
JSONS = (("report", TRAIN), ("peak", TRAIN, "--by", "site"), ("frag", TRAIN), ("oom", TRAIN), ("kv", SERVING))
MOST_CHARACTERS = 1 << 20
"""Of what a verb prints: less than the one name that has as many."""


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    made = {}
    for name, trace in ((TRAIN, training_trace(4, 6)), (SERVING, serving_trace())):
        (folder / name).mkdir()
        made[name] = write_container(with_hostile_names(trace), folder / name / FILE_NAME)
    return made


def _arguments(words: tuple[str, ...], traces: dict[str, Path], folder: Path) -> list[str | Path]:
    out = str(folder / FILE_NAME.removesuffix(".memscope"))
    return [traces.get(word, word.replace(OUT, out)) for word in words]


def _require_harmless(outcome: Outcome) -> None:
    assert outcome.code in (0, 2, 3)
    assert "defect" not in outcome.err
    assert all(line.isprintable() for line in (outcome.out + outcome.err).split("\n"))
    # Wherever a name stands in the text, what follows in it has not begun a line.
    assert not [line for line in outcome.out.split("\n") if line.startswith(" fake")]
    assert len(outcome.out) < MOST_CHARACTERS


@pytest.mark.parametrize("words", TEXTS, ids=" ".join)
def test_no_verb_prints_what_steers_a_terminal_and_names_are_there_to_be_read(
    words: tuple[str, ...],
    traces: dict[str, Path],
    memscope: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    outcome = memscope(*_arguments(words, traces, tmp_path))
    _require_harmless(outcome)
    assert SHOWN in outcome.out or words[0] in NAMELESS
    assert "<svg onload=alert(3)>" in outcome.out + outcome.err or words[0] == "sql"


@pytest.mark.parametrize("words", NARROW, ids=" ".join)
def test_nor_where_names_are_broken_over_lines(
    words: tuple[str, ...],
    traces: dict[str, Path],
    memscope: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _require_harmless(memscope(*_arguments(words, traces, tmp_path)))


@pytest.mark.parametrize("words", JSONS, ids=" ".join)
def test_json_escapes_names(
    words: tuple[str, ...], traces: dict[str, Path], memscope: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = memscope(*_arguments(words, traces, tmp_path), "--json")
    assert all(line.isprintable() for line in outcome.out.split("\n"))
    assert SHOWN in outcome.out
    assert isinstance(json.loads(outcome.out), dict)


def test_junit_is_xml_whatever_names_hold(
    traces: dict[str, Path], memscope: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = tmp_path / "found.xml"
    assert memscope("check", traces[TRAIN], "--max-peak", "1MB", "--allow-partial", "--junit", path).code == 2
    assert SHOWN in "".join(ET.parse(path).getroot().itertext())
