import io

import pytest

from memscope.reports.terminal import Terminal
from memscope.reports.whatif.text import print_techniques, print_what_ifs
from memscope.techniques.registry import TECHNIQUES
from memscope.techniques.technique import Cost
from memscope.techniques.whatif import what_if, what_if_all
from memscope.words.techniques import cost_words, refused_words
from tests.techniques.programs import train


def printed(width, write):
    out = io.StringIO()
    write(Terminal(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_technique_has_its_saving_in_any_width(width):
    device = train()
    found = what_if_all(device)
    text = printed(width, lambda console: print_what_ifs(device.recording, found, console))
    assert max(map(len, text.splitlines())) <= width
    for result in found.results:
        assert result.technique in text
    assert "checked against truly changed programs" in text.replace("\n", " ").replace("  ", " ")


def test_what_is_in_force_says_so_and_what_to_write_is_there():
    device = train()
    text = printed(
        120, lambda c: print_what_ifs(device.recording, what_if(device, ["set-to-none", "micro-batch:2"]), c)
    )
    assert "set-to-none: gradients are let go of after each step already" in text
    assert "batch.chunk(2)" in text
    assert "2 passes in place of one" in text


def test_a_cost_is_said_in_words():
    assert cost_words(Cost()) == ""
    assert cost_words(Cost(recomputed_frac=0.25, moved_bytes_per_step=1 << 30)) == "+25.0 % work; 1.0 GiB moved a step"


def test_the_list_names_every_technique():
    text = printed(100, lambda console: print_techniques(TECHNIQUES.values(), console))
    assert all(technique.usage in text for technique in TECHNIQUES.values())


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("names", [["micro-batch:2"], None])
def test_a_cost_is_there_in_any_width_and_once(width, names):
    device = train()
    found = what_if_all(device) if names is None else what_if(device, names)
    text = " ".join(printed(width, lambda console: print_what_ifs(device.recording, found, console)).split())
    for result in found.results:
        if result.note is None and cost_words(result.costs[0]) and width < 160:
            assert f"costs {cost_words(result.costs[0])}" in text
    assert ("costs 2 passes in place of one" in text) is ("not shown" in text)


def test_techniques_that_do_not_apply_for_one_reason_are_in_one_line():
    device = train()
    refused = what_if_all(device).not_applicable
    lines = refused_words(refused)
    assert len(lines) == len({text.partition(" does not apply: ")[2] for _, text in refused}) < len(refused)
    (line,) = [line for line in lines if "key/value" in line]
    assert line.startswith("kv:fp8, ")
    assert "static-kv do not apply: no key/value cache was seen" in line
    for name, _ in refused:
        assert sum(name in line for line in lines) == 1
    assert refused_words([("a", "a does not apply: why")]) == ["a does not apply: why"]
