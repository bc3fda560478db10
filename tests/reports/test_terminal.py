"""Tables and lines at any width: columns go before a number or a setting is cut."""

from __future__ import annotations

import io
import time

import pytest
from rich.text import Text

from memscope.reports.terminal import Column, FittedTable, Kind, Terminal

CONF = "expandable_segments:True,max_split_size_mb:128,garbage_collection_threshold:0.8"


def table() -> FittedTable:
    made = FittedTable(
        Column("settings", Kind.SETTING),
        Column("peak reserved"),
        Column("calls", place=2),
        Column("retries", place=3),
        Column("", Kind.WORDS, place=1, called="what it is"),
    )
    made.add_row(CONF, "74.0 MiB", "1,234", "0", "as PyTorch itself decides")
    made.add_row("default", "−1023.9 KiB", "", "12", Text("by a model of it", style="red"), style="bold")
    return made


def printed(made: FittedTable, width: int) -> str:
    out = io.StringIO()
    made.print(Terminal(file=out, width=width))
    return out.getvalue()


def test_with_room_enough_everything_stands_on_one_line() -> None:
    lines = printed(table(), 160).splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["settings", "peak", "reserved", "calls", "retries"]
    assert CONF in lines[1]
    assert "not shown" not in "".join(lines)


@pytest.mark.parametrize("width", [20, 32, 40, 50, 60, 80, 100, 120])
def test_at_no_width_is_a_number_or_a_setting_cut(width: int) -> None:
    text = printed(table(), width)
    assert "…" not in text
    assert "74.0 MiB" in text
    assert "−1023.9 KiB" in text
    for setting in CONF.split(","):
        assert setting in text
    # What cannot be made narrower: the longest setting, the longest size, and the blanks before them.
    least = 2 + len("garbage_collection_threshold:0.8") + 2 + len("−1023.9 KiB")
    shown, _, rest = text.partition("  not shown")
    assert max(map(len, shown.splitlines())) <= max(width, least)
    assert all(len(line) <= width for line in rest.splitlines()[1:])


def test_the_least_important_columns_go_first_and_are_named() -> None:
    # Settings take 2 + 32 at least, sizes 2 + 11, the words 2 + 24, calls 2 + 5 and retries 2 + 7.
    assert "not shown" not in printed(table(), 89)
    assert printed(table(), 88).endswith("  not shown in 88 columns: retries\n")
    assert printed(table(), 73).endswith("  not shown in 73 columns: calls, retries\n")
    assert printed(table(), 72).endswith("  not shown in 72 columns: what it is\n")


def test_headings_are_broken_before_a_column_is_left_out() -> None:
    made = FittedTable(Column("what", Kind.NAME), Column("highest of all", place=1))
    made.add_row("name", "1 B")
    assert printed(made, 24).splitlines()[0].split() == ["what", "highest", "of", "all"]
    assert printed(made, 16).splitlines()[-2:] == ["  what   of all", "  name      1 B"]


def test_an_optional_column_that_is_empty_takes_no_room() -> None:
    made = FittedTable(Column("what", Kind.NAME), Column("sometimes", place=1))
    made.add_row("name", "")
    assert printed(made, 40) == "  what\n  name\n"


def test_names_stay_text_on_one_line() -> None:
    made = FittedTable(Column("what", Kind.WORDS), Column("size"))
    made.add_row("[red]a\nb\x1b[31m", "1 B")
    assert printed(made, 60).splitlines()[1].split() == ["[red]a", "b", "[31m", "1", "B"]


def test_a_long_line_goes_on_under_its_beginning_and_keeps_numbers_whole() -> None:
    out = io.StringIO()
    Terminal(file=out, width=30).print(Text("  · of what is reserved, 512.0 MiB are free"))
    assert out.getvalue() == "  · of what is reserved,\n    512.0 MiB are free\n"
    out = io.StringIO()
    Terminal(file=out, width=24).print("  [bold] takes up 12.5 MiB of it")
    assert out.getvalue() == "  [bold] takes up\n  12.5 MiB of it\n"


def test_where_lines_may_be_long_they_stay_whole() -> None:
    out = io.StringIO()
    Terminal(file=out, width=20, soft_wrap=True).print("  a line that is longer than that")
    assert out.getvalue() == "  a line that is longer than that\n"


def test_words_are_broken_between_them_and_paths_between_their_parts() -> None:
    made = FittedTable(Column("size"), Column("what", Kind.WORDS))
    made.add_row("1.5 MiB", "weights: /home/user/project/module/attention.py:36 forward")
    made.add_row("2 B", "exp_avg_sq of model.layers.10.mlp.down_proj.weight")
    assert printed(made, 36).splitlines()[1:] == [
        "  1.5 MiB  weights: /home/user/",
        "           project/module/",
        "           attention.py:36 forward",
        "      2 B  exp_avg_sq of model.",
        "           layers.10.mlp.down_proj.",
        "           weight",
    ]
    assert printed(made, 54).splitlines()[1:] == [
        "  1.5 MiB  weights:",
        "           /home/user/project/module/attention.py:36",
        "           forward",
        "      2 B  exp_avg_sq of",
        "           model.layers.10.mlp.down_proj.weight",
    ]


@pytest.mark.parametrize(
    "text", ["x" * 200_000, "x " * 100_000, "\u0301" * 100_000, "a," * 100_000 + "b:1", "漢" * 50_000]
)
def test_a_text_of_any_length_is_broken_in_time_and_loses_nothing(text: str) -> None:
    for kind in (Kind.WORDS, Kind.SETTING):
        made = FittedTable(Column("what", kind), Column("size"))
        made.add_row(text, "1 B")
        began = time.perf_counter()
        lines = printed(made, 60)
        assert time.perf_counter() - began < 20
        assert lines.count(text[0]) >= text.count(text[0])


def test_no_line_of_a_table_ends_with_blanks() -> None:
    for width in (40, 80, 120):
        assert not [line for line in printed(table(), width).splitlines() if line != line.rstrip()]


STEERING = "".join(map(chr, (*range(10), *range(11, 32), *range(127, 160)))) + "\u202a\u202e\u2066\u200f\udc80"


@pytest.mark.parametrize("width", [20, 80, 4000])
def test_no_character_that_a_terminal_obeys_leaves_and_styles_keep_their_places(width: int) -> None:
    out = io.StringIO()
    console = Terminal(file=out, width=width, force_terminal=False)
    marked = Text(f"a{STEERING}b")
    marked.stylize("bold", 0, 1)
    table = FittedTable(Column(f"he{STEERING}ad", Kind.NAME), Column("n", called=f"{STEERING}n"))
    table.add_row(f"x{STEERING}y", Text(f"1{STEERING}"))
    console.print(f"first{STEERING}\nsecond")
    console.print(marked)
    console.print(marked, style="dim")
    table.print(console)
    lines = out.getvalue().split("\n")
    assert all(line.isprintable() for line in lines)
    assert "second" in lines
    styled = io.StringIO()
    Terminal(file=styled, width=width, force_terminal=True, color_system="standard").print(marked)
    assert styled.getvalue().startswith("\x1b[1ma\x1b[0m ")


def test_a_table_says_which_column_it_has_no_room_for() -> None:
    table = FittedTable(Column("name", Kind.NAME), Column("costs", Kind.WORDS, place=1), Column("none", place=2))
    table.add_row("a" * 30, "words and words and words", "")
    assert [table.leaves_out("costs", width) for width in (36, 100)] == [True, False]
    assert not table.leaves_out("none", 36)
