"""The program: its verbs, its help, and how errors become one line and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome
from tests.oracles import BAD, needs_shared
from tests.trace.snapshot.snapshots import small, write

Run = Callable[..., Outcome]


def test_unknown_devices_and_options_are_one_line_and_exit_1(memscope: Run, trace_file: Path) -> None:
    outcome = memscope("peak", trace_file, "--device", 3)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "memscope: device 3 is not in this trace (it has 0)\n"
    outcome = memscope("report", trace_file, "--nonsense")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1


def test_missing_and_unreadable_files_are_one_line_and_exit_1(memscope: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pickle", tmp_path):
        outcome = memscope("report", path)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert str(path) in outcome.err


def test_help_of_every_verb(memscope: Run) -> None:
    from memscope.cli.main import VERBS

    for verb in VERBS:
        outcome = memscope(verb, "--help")
        assert outcome.code == 0
        assert "Usage: memscope" in outcome.out


@needs_shared
@pytest.mark.parametrize("path", sorted(p for p in BAD.glob("*") if p.suffix != ".md"), ids=lambda p: p.name)
def test_bad_inputs_get_one_line_and_their_exit_code(memscope: Run, path: Path) -> None:
    expected = {"blocks-do-not-tile": 3, "double-free": 3, "contradictory-synthetic": 3, "hostile-names-but-valid": 0}
    before = set(os.listdir())  # noqa: PTH208
    outcome = memscope("report", path, "--json")
    code = expected.get(path.name.split(".")[0], 1)
    assert outcome.code == code
    assert set(os.listdir()) == before  # noqa: PTH208
    if code:
        assert path.name in outcome.err
        assert outcome.err.count("\n") == 1
    if code == 3:
        report = json.loads(outcome.out)
        assert report["completeness"]["contradictions"]
        assert report["devices"] == []
    if code == 1:
        assert outcome.out == ""


def test_without_a_verb_the_help_is_shown(memscope: Run) -> None:
    outcome = memscope()
    assert outcome.code == 1
    assert outcome.err.startswith("Usage: memscope")
    assert "verify" in outcome.err


def test_bad_usage_names_the_help_to_read(memscope: Run) -> None:
    assert memscope("report").err == "memscope: Missing argument 'TRACE' (memscope report --help says how)\n"
    assert memscope("bogus").err.startswith("memscope: there is no command 'bogus': choose one of run, import, report,")
    assert memscope("Repot").err.startswith("memscope: there is no command 'Repot': did you mean 'report'?")
    file = Path(__file__)
    assert memscope(file).err.startswith(f"memscope: '{file}' is a file: memscope report {file} says where")
    for no_file in (file.parent, "x" * 5000, "a\0b"):
        assert memscope(no_file).err.startswith("memscope: there is no command")


def test_what_the_machine_refuses_is_named_and_is_no_defect(memscope: Run) -> None:
    name = "x" * 5000
    assert memscope("report", "a\nb\x1b[31m") == (1, "", "memscope: a b [31m: no such file\n")
    code, out, err = memscope("report", name)
    assert (code, out) == (1, "")
    assert len(err) < 1100
    assert err.startswith("memscope: xxx")
    assert err.endswith("xxx: cannot be read: File name too long\n")


TRAIN = Path(__file__).resolve().parents[2] / "traces" / "tiny-llama-train.memscope"
SERVING = ("serving", "--config", "llama-3-8b", "--generate", "3")


@pytest.mark.parametrize(
    ("arguments", "given", "meant"),
    [
        (("repot", TRAIN), "repot", "report"),
        (("peak", TRAIN, "--bye", "module"), "--bye", "--by"),
        (("peak", TRAIN, "--by", "modul"), "modul", "module"),
        (("replay", TRAIN, "--strategy", "stiching"), "stiching", "stitching"),
        (("replay", TRAIN, "--conf", "expandable_segment:True"), "expandable_segment", "expandable_segments"),
        (("replay", TRAIN, "--cnf", ""), "--cnf", "--conf"),
        (("tune", TRAIN, "--engine", "rai"), "rai", "ray"),
        (("run", "--dry-run", "--gpu", "H10", TRAIN), "H10", "H100-80GB"),
        (("run", "--dryrun", TRAIN), "--dryrun", "--dry-run"),
        (("run", "--dry-run", "--stacks", "pyton", TRAIN), "pyton", "python"),
        ((*SERVING, "--gpu", "h10"), "h10", "H100-80GB"),
        ((*SERVING, "--manager", "paged-prefx"), "paged-prefx", "paged-prefix"),
        ((*SERVING, "--lengths", "sharegp"), "sharegp", "sharegpt"),
        ((*SERVING, "--weights", "int88"), "int88", "int8"),
        (("serving", "--config", "llama3-8b"), "llama3-8b", "llama-3-8b"),
    ],
    ids=lambda value: " ".join(map(str, value[:1])) if isinstance(value, tuple) else str(value),
)
def test_a_name_that_there_is_not_is_answered_with_the_one_that_was_meant(
    memscope: Run, arguments: tuple[object, ...], given: str, meant: str
) -> None:
    outcome = memscope(*arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert given in outcome.err
    assert f": did you mean {meant!r}?" in outcome.err


def test_a_name_like_none_is_answered_with_all_that_there_are(memscope: Run) -> None:
    assert memscope("peak", TRAIN, "--by", "zzz").err == (
        "memscope: --by: there is no 'zzz': choose one of category, site, module, kind, step, tag, rule\n"
    )
    assert (
        memscope("peak", TRAIN, "--zzz").err == "memscope: there is no option '--zzz' (memscope peak --help says how)\n"
    )


def test_an_option_of_other_verbs_is_said_to_be_theirs(memscope: Run) -> None:
    assert memscope("frag", TRAIN, "--apply", "zzz").err == (
        "memscope: there is no option '--apply' here: whatif has it (memscope frag --help says how)\n"
    )
    outcome = memscope("peak", TRAIN, "--events", "1:2")
    assert (outcome.code, outcome.out) == (1, "")
    assert "there is no option '--events' here: import, report" in outcome.err


def test_the_help_of_the_program_imports_nothing_that_is_heavy() -> None:
    code = (
        "import sys; sys.argv = ['memscope', '--help']\n"
        "from memscope.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(set(sys.modules) & {'numpy', 'rich', 'torch', 'plotly', 'pandas', 'dash'}), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


HOSTILE = "\x1b[31mred\x07\n\rfake line\u202e" + "A" * 5000


@pytest.mark.parametrize(
    "verb",
    [
        ("report",),
        *(("peak", "--by", by) for by in ("category", "site", "module", "step", "tag", "rule")),
        ("oom",),
        ("frag",),
        ("verify",),
        ("replay", "--strategy", "lower-bound"),
        ("kv",),
    ],
    ids=" ".join,
)
def test_names_in_a_recording_never_reach_the_terminal_as_they_are(
    memscope: Run, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    snapshot = small()
    frames = [{"name": HOSTILE, "filename": f"/src/{HOSTILE}", "line": 3}]
    snapshot["segments"][0]["blocks"][0]["frames"] = frames
    for i, event in enumerate(snapshot["device_traces"][0]):
        event |= {"frames": frames, "user_metadata": HOSTILE if i == 1 else ""}
    oom = {"action": "oom", "size": 1 << 40, "stream": 0, "time_us": 110, "device_free": 5, "frames": frames}
    snapshot["device_traces"][0].append(oom)
    snapshot["external_annotations"] = [
        {"stage": stage, "name": name, "device": 0, "time_us": time_us}
        for stage, time_us in (("START", 99), ("END", 120))
        for name in (HOSTILE, "step 1")
    ]
    snapshot["allocator_settings"]["PYTORCH_CUDA_ALLOC_CONF"] = HOSTILE
    path = write(tmp_path, snapshot).rename(tmp_path / "a\x1b[31m\x07.pickle")
    outcome = memscope(verb[0], path, *verb[1:])
    assert outcome.code in (0, 3)
    assert "defect" not in outcome.err
    for line in (outcome.out + outcome.err).split("\n"):
        assert line.isprintable()
        assert len(line) <= 1100
        assert not line.startswith("fake line")
