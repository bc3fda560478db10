"""Every ``--json`` object is what ``docs/schema/VERB.json`` says, and a schema refuses what it should."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome
from tests.planning.models import LLAMA

jsonschema = pytest.importorskip("jsonschema")
Run = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "docs" / "schema"
TRAIN, GENERATE, FULL = (
    ROOT / "traces" / f"tiny-{name}.memscope" for name in ("llama-train", "gpt2-generate", "out-of-memory")
)
CONFIG, SCRIPT = "CONFIG", "SCRIPT"
"""Stand for a file of a small model's configuration, and for a program that takes memory."""
COMMANDS: dict[str, tuple[tuple[object, ...], ...]] = {
    "report": ((TRAIN,), (FULL,)),
    "peak": ((TRAIN,), (FULL, "--by", "site")),
    "frag": ((TRAIN,),),
    "oom": ((FULL,), (TRAIN,)),
    "verify": ((TRAIN,), (GENERATE,)),
    "replay": ((FULL,), (TRAIN, "--conf", "expandable_segments:True")),
    "tune": ((FULL, "--top", "2"),),
    "kv": ((GENERATE,),),
    "serving": (("--config", "llama-3-8b", "--generate", "20", "--rate", "10"),),
    "diff": ((TRAIN, GENERATE), (TRAIN, "--steps", "0:2", "--by", "site")),
    "check": ((TRAIN, "--max-peak", "1GB"), (TRAIN, "--baseline", GENERATE), (FULL, "--max-reserved", "1TB")),
    "baseline": ((TRAIN, "-f", "-o", "OUT"),),
    "sql": ((TRAIN, "select *, 1.5 as x, true as y, current_date as z from steps"),),
    "export": ((TRAIN, "--format", "csv", "-f", "-o", "OUT"),),
    "slice": (
        (TRAIN, "--steps", "1:2", "-f", "-o", "OUT.memscope"),
        (TRAIN, "--events", "0:9", "-f", "-o", "OUT.pickle"),
    ),
    "estimate": (
        ("--config", CONFIG, "--mode", "train", "--seq", "32", "--gpu", "T4", "--gpu", "530MiB"),
        ("--config", CONFIG, "--mode", "generate", "--seq", "32", "--gpu", "600MiB", "--gpu", "T4", "--solve", "gpu"),
        ("--config", CONFIG, "--mode", "train", "--seq", "32", "--gpu", "530MiB", "--solve", "batch"),
    ),
    "fit": (("--vary", "--n", "--gpu", "600MiB", "--to", "2", SCRIPT),),
    "whatif": (
        (TRAIN, "--apply", "optimizer:sgd", "--apply", "micro-batch:2"),
        (FULL, "--all"),
        (TRAIN, "--fit", "580MiB"),
        (FULL, "--fit", "A100-80GB"),
    ),
    "redact": ((TRAIN, "-f", "-o", "OUT.memscope"),),
    "doctor": ((),),
}


def schema_of(verb: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / f"{verb}.json").read_text())
    return found


def told_of(arguments: tuple[object, ...], folder: Path) -> list[object]:
    """Arguments with files of a folder in the places of those that stand for them."""
    path = folder / "config.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    script = folder / "takes.py"
    script.write_text("import sys, torch\nx = torch.empty(int(sys.argv[2]) << 20, device='cuda')\n", encoding="utf-8")
    told = (path if a is CONFIG else script if a is SCRIPT else a for a in arguments)
    return [a.replace("OUT", str(folder / "out")) if isinstance(a, str) else a for a in told]


def test_there_is_a_schema_for_each_of_them_and_each_is_one() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == set(COMMANDS)
    for verb in COMMANDS:
        jsonschema.Draft202012Validator.check_schema(schema_of(verb))


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_what_a_verb_prints_is_what_its_schema_says(memscope: Run, tmp_path: Path, verb: str) -> None:
    validator = jsonschema.Draft202012Validator(schema_of(verb))
    for arguments in COMMANDS[verb]:
        if verb == "sql":
            pytest.importorskip("duckdb")
        told = told_of(arguments, tmp_path)
        outcome = memscope(verb, "--json", *told)
        assert outcome.code in (0, 2, 3), outcome.err
        validator.validate(json.loads(outcome.out))


def test_several_checks_are_what_the_schema_says(memscope: Run, tmp_path: Path) -> None:
    checks = tmp_path / "checks.toml"
    table = '[[check]]\nname = "{name}"\ntrace = "{trace}"\nmax_peak = "{limit}"\n'
    pairs = (("one", "1MB"), ("two", "1GB"))
    checks.write_text("".join(table.format(name=name, trace=TRAIN, limit=limit) for name, limit in pairs))
    printed = json.loads(memscope("check", "--config", checks, "--json").out)
    assert [one["ok"] for one in printed["checks"]] == [False, True]
    validator = jsonschema.Draft202012Validator(schema_of("check"))
    validator.validate(printed)
    del printed["checks"][0]["blame"]
    assert not validator.is_valid(printed)


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_no_key_that_scripts_rely_on_can_go_or_become_another_type(memscope: Run, tmp_path: Path, verb: str) -> None:
    if verb == "sql":
        pytest.importorskip("duckdb")
    told = told_of(COMMANDS[verb][0], tmp_path)
    printed = json.loads(memscope(verb, "--json", *told).out)
    schema = schema_of(verb)
    validator = jsonschema.Draft202012Validator(schema)
    required = (schema["anyOf"][0] if "anyOf" in schema else schema)["required"]
    for key in required:
        without = {name: value for name, value in printed.items() if name != key}
        assert not validator.is_valid(without), key
        if printed[key] is not None and not isinstance(printed[key], str):
            assert not validator.is_valid({**copy.deepcopy(printed), key: "a text"}), key
