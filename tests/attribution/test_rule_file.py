"""The user's own rules: tried first, and refused in one line where they cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.attribution.attribution import attribute
from memscope.attribution.rule_file import read_rules, rules_with
from memscope.attribution.rule_table import ALL_RULES
from memscope.errors import InputFileError
from memscope.trace.categories import Category, CategorySource
from memscope.trace.container import read_container, write_container
from memscope.units import format_bytes
from tests.attribution.from_stacks import without_identity
from tests.attribution.scripted import Script
from tests.conftest import Outcome

LLAMA = Path(__file__).resolve().parents[2] / "traces" / "tiny-llama-train.memscope"
GOOD = r"""
[[rule]]
name = "my retrieval index"
category = "workspace"
reason = "loaded once and searched in place"
frames = [{ file = "train\\.py$", function = "^train$" }]
phases = ["outside"]
lives = ["kept"]

[[rule]]
name = "my scratch"
category = "temporaries"
reason = "a pass of my own"
frames = [{ function = "^forward$" }]
phases = ["forward"]
sizes_bytes = [512]
"""
HEAD = "[[rule]]\nname = 'a'\ncategory = 'weights'\nreason = 'r'\n"
BAD = {
    "": "not a file of rules: it has no [[rule]]",
    "rule = 3": "not a file of rules: it has no [[rule]]",
    "[[rule]\n": "not a file of rules: ",
    "[[rules]]\nname = 'x'": "not a file of rules: 'rules' is not known",
    "rule = [3]": "rule 1: not a table",
    HEAD.replace("name = 'a'\n", ""): "rule 1: name is missing",
    HEAD.replace("reason = 'r'\n", ""): "rule 1 ('a'): reason is missing",
    HEAD.replace("weights", "cash"): "rule 1 ('a'): category 'cash' is not known: choose one of weights,",
    HEAD.replace("weights", "wieghts"): "category 'wieghts' is not known: did you mean 'weights'? Choose one of",
    HEAD: "rule 1 ('a'): it would fit everything",
    HEAD + "colour = 'red'": "rule 1 ('a'): a rule has no 'colour': choose one of category,",
    HEAD.replace("'a'", "'KV cache'"): "there is a rule of that name already",
    HEAD + "frames = [{file = '('}]": "file '(' is not a regular expression",
    HEAD + "frames = [{line = 3}]": "a frame has file, function, or both",
    HEAD + "frames = 3": "frames must be a list",
    HEAD + "lives = ['long']": "life 'long' is not known: choose one of short,",
    HEAD + "phases = ['sleep']": "phase 'sleep' is not known",
    HEAD + "sizes_bytes = [0]": "sizes_bytes must be numbers of bytes above 0",
}


def script() -> Script:
    """Something that memscope's own rules leave unknown, and an activation."""
    found = Script()
    found.alloc("index", "user", 4096)
    found.alloc("activation", "forward", 512)
    found.alloc("larger", "forward", 1024)
    return found


def write(tmp_path: Path, text: str) -> Path:
    """A file of rules."""
    path = tmp_path / "rules.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_users_rules_come_first_and_count_as_the_users_word(tmp_path: Path) -> None:
    recorded = script()
    rules = rules_with(write(tmp_path, GOOD))
    assert rules[2:] == ALL_RULES
    attribution = attribute(recorded.lifetimes(), rules)
    found = {name: Category(int(attribution.category[row])) for name, row in recorded.rows.items()}
    assert found == {
        "index": Category.WORKSPACE,
        "activation": Category.TEMPORARIES,
        "larger": Category.ACTIVATIONS,
    }
    assert attribution.source.tolist() == [CategorySource.USER, CategorySource.USER, CategorySource.RULE]
    names = [rule.name if (rule := attribution.rule_of(row)) else None for row in range(3)]
    assert names == ["my retrieval index", "my scratch", "module forward"]


@pytest.mark.parametrize("text", list(BAD))
def test_a_bad_file_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputFileError) as error:
        read_rules(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert BAD[text] in message
    assert "\n" not in message


def test_a_file_that_is_not_there_or_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        read_rules(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputFileError, match="not UTF-8 text"):
        read_rules(tmp_path / "binary.toml")


FORWARD_UNKNOWN = r"""
[[rule]]
name = "not told"
category = "unknown"
reason = "to see what is unknown"
frames = [{ file = "torch/nn/modules/module\\.py$", function = "_call_impl" }]
phases = ["forward"]
[[rule]]
name = "my optimizer"
category = "workspace"
reason = "to see that it decides"
phases = ["optimizer"]
frames = [{ file = "torch/optim/" }]
"""


def test_verbs_take_rules_and_name_what_decided(memscope: Callable[..., Outcome], tmp_path: Path) -> None:
    blind = write_container(without_identity(read_container(LLAMA)), tmp_path / "a.memscope")
    rules = write(tmp_path, FORWARD_UNKNOWN)
    assert load(blind, rules=rules).rules[0].is_users
    plain = json.loads(memscope("peak", blind, "--json").out)
    assert plain["coverage"]["unknown_bytes"] == 0
    assert plain["unknown_sites"] == []
    ruled = json.loads(memscope("peak", blind, "--rules", rules, "--by", "rule", "--json").out)
    by_rule = {row["rule"]: row["requested_bytes"] for row in ruled["rows"]}
    assert ruled["coverage"]["by_source"]["user"] == by_rule["my optimizer"] > 0
    sites = ruled["unknown_sites"]
    assert by_rule["not told"] == ruled["coverage"]["unknown_bytes"] >= sum(site["bytes"] for site in sites) > 0
    text = memscope("report", blind, "--rules", rules)
    assert f"    unknown {format_bytes(sites[0]['bytes'])} in " in text.out
    page = tmp_path / "report.html"
    assert memscope("report", blind, "--rules", rules, "-o", page).code == 0
    assert sites[0]["site"] in page.read_text("utf-8")
    assert memscope("frag", blind, "--rules", rules).code == 0


@pytest.mark.parametrize("verb", ["peak", "report", "frag", "dash"])
def test_verbs_refuse_bad_rules_in_one_line(memscope: Callable[..., Outcome], tmp_path: Path, verb: str) -> None:
    rules = write(tmp_path, "[[rule]]\nname = 'a'\n")
    outcome = memscope(verb, LLAMA, "--rules", rules)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"memscope: {rules}: rule 1 ('a'): reason is missing\n"
