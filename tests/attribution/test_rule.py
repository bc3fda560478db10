"""A rule fits where everything that it names holds, and the first that fits decides."""

from __future__ import annotations

from typing import Any

from memscope.attribution.phases.lives import Life
from memscope.attribution.phases.phases import Phase
from memscope.attribution.rule import Rule, match_rows
from memscope.trace.categories import Category
from memscope.trace.frames import FramePattern
from tests.attribution.scripted import Script, trained


def rule(name: str, **asks: Any) -> Rule:
    return Rule(name, Category.WORKSPACE, "to try it", **asks)


def fitting(script: Script, *rules: Rule) -> dict[str, str | None]:
    """The rule that fits each named allocation."""
    found = match_rows(script.lifetimes(), rules)
    return {name: None if found[row] < 0 else rules[found[row]].name for name, row in script.rows.items()}


IN_MODULE = FramePattern(r"torch/nn/modules/", "^_call_impl$")
IN_NET = FramePattern(r"/net\.py$")


def test_every_frame_of_a_rule_must_be_in_the_stack() -> None:
    script = Script()
    script.alloc("within a module", "forward")
    script.alloc("beside the module", "constructor")
    script.alloc("no stack", None)
    both = fitting(script, rule("both", frames=(IN_MODULE, IN_NET)))
    assert both == {"within a module": "both", "beside the module": None, "no stack": None}
    one = fitting(script, rule("one", frames=(IN_NET,)))
    assert one == {"within a module": "one", "beside the module": "one", "no stack": None}


def test_a_caller_must_call_it_directly() -> None:
    script = Script()
    script.alloc("within a module", "forward")
    assert fitting(script, rule("it", frames=(IN_NET,), called_by=IN_MODULE)) == {"within a module": "it"}
    assert fitting(script, rule("it", frames=(IN_NET,), called_by=IN_NET)) == {"within a module": None}


def test_the_first_that_fits_decides() -> None:
    script = Script()
    script.alloc("a", "forward")
    first, second = rule("first", frames=(IN_NET,)), rule("second", frames=(IN_MODULE,))
    assert fitting(script, first, second) == {"a": "first"}
    assert fitting(script, second, first) == {"a": "second"}


def test_a_rule_without_frames_needs_no_stack() -> None:
    script = trained(backward=None)
    found = fitting(script, rule("backward", phases=(Phase.BACKWARD,)))
    assert {name.rstrip("0123456789") for name, by in found.items() if by} == {"gradient", "inner"}


def test_sizes_and_lives_must_hold_together() -> None:
    script = Script()
    script.alloc("kept", "forward", 1024)
    script.alloc("dropped", "forward", 1024)
    script.alloc("smaller", "forward", 512)
    script.free("dropped", "forward")
    assert fitting(script, rule("r", sizes_bytes=(1024,), lives=(Life.KEPT,))) == {
        "kept": "r",
        "dropped": None,
        "smaller": None,
    }
