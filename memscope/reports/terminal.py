"""What fits a terminal's width: tables that leave out columns rather than cut a number, and lines that hang."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memscope.words.labels import printable

_GAP = 2
"""Blanks before each column."""
_LEAST_WORDS = 24
"""A column of words is not made narrower than this while others can be left out."""
_LONGEST_SETTING = 48
"""No setting of PyTorch's is longer: what is, is anyone's text."""
_SETTING_ENDS = re.compile(r"(?<=[,\s])")
_HEADING_ENDS = re.compile(r"(?<=[\s_./-])")
"""Headings may be names of files."""
_INDENT = re.compile(r"\s*(?:[·⚠●✓≈?!○]\s+)?")

_WORD_ENDS = r"(?<=\s)(?<!\d\s)|(?<=\d\s)(?!(?:[KMGT]i?)?B\b|%|[nµm]?s\b)"
"""Between words, but not between a number and its unit."""
_LINE_ENDS = re.compile(rf"{_WORD_ENDS}|(?<=[^\s,],)(?=[a-z_]+:)")
"""And between settings."""
_CELL_ENDS = re.compile(_WORD_ENDS)
_NAME_ENDS = re.compile(r"(?<=[/\\])|(?<=[^\d\s]\.)(?=\w)(?!\w{1,4}:-?\d)")
"""Between the parts of a path, or of a module's name, but not before a file's ending."""

Cell = str | Text


class Terminal(Console):
    """A console on which a line that is too long goes on under its own beginning, not under the margin.

    Texts come from anyone's program: brackets in them are no markup, and what would steer the terminal is a blank. This
    is the one place where text leaves for it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False, highlight=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print like any console; a text alone is hung under its indent."""
        objects = tuple(_harmless(one) for one in objects)
        if len(objects) == 1 and isinstance(objects[0], str | Text) and not (options or self.soft_wrap):
            text = Text(objects[0]) if isinstance(objects[0], str) else objects[0]
            if any(cell_len(line) > self.width for line in text.plain.split("\n")):
                for line in text.split("\n"):
                    self._print_hung(line)
                return
        super().print(*objects, **options)

    def _print_hung(self, line: Text) -> None:
        found = _INDENT.match(line.plain)
        n_indent = 0 if found is None else min(found.end(), self.width // 2)
        first, rest = line.divide([n_indent])
        breaks = _breaks(rest.plain, _LINE_ENDS, self.width - cell_len(first.plain))
        for i, part in enumerate(rest.divide(breaks)):
            part.rstrip()
            super().print((first if i == 0 else Text(" " * cell_len(first.plain))) + part)


class Kind(Enum):
    """What stands in a column, and so what may happen to it where the width is small."""

    NUMBER = "number"
    """Set right, never cut and never broken."""
    NAME = "name"
    """Set left, never cut and never broken."""
    SETTING = "setting"
    """Never cut; broken after commas only."""
    WORDS = "words"
    """Broken between words."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    place
        0 for one that is always there. Of the others those with the highest are left out first.
    called
        What to call it when it is left out, where that is not its heading.
    """

    heading: str
    kind: Kind = Kind.NUMBER
    place: int = 0
    style: str = ""
    called: str = ""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which columns there are, how wide each is, and whether their headings are broken."""

    widths: dict[int, int]
    is_broken: bool


class FittedTable:
    """A table that is never cut: where the width does not do, columns are left out, the least important first.

    Parameters
    ----------
    columns
        In their order from left to right.
    has_header
        Whether the headings are shown.
    """

    def __init__(self, *columns: Column, has_header: bool = True) -> None:
        self.columns = columns
        self._has_header = has_header
        self._rows: list[tuple[list[Text], str | None]] = []

    def add_row(self, *cells: Cell, style: str | None = None) -> None:
        """Add a row; cells that are missing at its end are empty."""
        texts = [_text(cell) for cell in cells]
        texts += [Text() for _ in range(len(self.columns) - len(texts))]
        self._rows.append((texts, style))

    def fits(self, width: int) -> bool:
        """Whether nothing is left out or too wide."""
        every = range(len(self.columns))
        return self._room(width, every, True) >= 0

    def leaves_out(self, heading: str, width: int) -> bool:
        """Whether there is no room for a column that says something."""
        shown = self._layout(width).widths
        return any(
            column.heading == heading and i not in shown and any(cells[i].plain for cells, _ in self._rows)
            for i, column in enumerate(self.columns)
        )

    def print(self, console: Console) -> None:
        """Print what fits, and name what does not."""
        layout = self._layout(console.width)
        shown = sorted(layout.widths)
        width = sum(layout.widths.values()) + _GAP * len(shown)
        table = Table(box=None, padding=(0, 0, 0, _GAP), show_header=self._has_header, header_style="dim", width=width)
        for i in shown:
            column = self.columns[i]
            table.add_column(
                Text(self._heading(i, layout.is_broken)),
                justify="right" if column.kind is Kind.NUMBER else "left",
                width=layout.widths[i],
                no_wrap=column.kind in (Kind.NUMBER, Kind.NAME),
                overflow="fold",
                style=column.style,
            )
        for cells, style in self._rows:
            table.add_row(*(self._fitted(i, cells[i], layout.widths[i]) for i in shown), style=style)
        for line in console.render_lines(table, console.options.update(max_width=width), pad=False):
            text = Text.assemble(*((part.text, part.style or "") for part in line if not part.control))
            text.rstrip()
            console.print(text, soft_wrap=True)
        left_out = [
            column.called or column.heading.replace("\n", " ")
            for i, column in enumerate(self.columns)
            if i not in layout.widths and any(cells[i].plain for cells, _ in self._rows)
        ]
        if left_out:
            console.print(Text(f"  not shown in {console.width} columns: {', '.join(left_out)}", style="dim"))

    def _fitted(self, i: int, cell: Text, width: int) -> Text:
        ends = {Kind.SETTING: _SETTING_ENDS, Kind.WORDS: _CELL_ENDS}.get(self.columns[i].kind)
        return cell if ends is None else Text(_broken(cell.plain, ends, width), style=cell.style)

    def _layout(self, width: int) -> _Layout:
        """As many columns as there is room for; headings are broken where that makes room for more."""
        whole, broken = self._chosen(width, is_broken=False), self._chosen(width, is_broken=True)
        # The first column that one has and the other has not decides.
        ranked = [[*(self.columns[i].place for i in chosen), len(self.columns)] for chosen in (broken, whole)]
        is_broken = ranked[0] < ranked[1] or (ranked[0] == ranked[1] and self._room(width, whole, False) < 0)
        chosen = broken if is_broken else whole
        widths = {i: self._least(i, is_broken) for i in chosen}
        room = max(width - sum(widths.values()) - _GAP * len(widths), 0)
        for i in sorted(widths, key=lambda i: (self.columns[i].kind is not Kind.SETTING, i)):
            more = min(self._most(i, is_broken) - widths[i], room)
            widths[i] += more
            room -= more
        return _Layout(widths, is_broken)

    def _chosen(self, width: int, *, is_broken: bool) -> list[int]:
        columns = self.columns
        is_empty = [not any(cells[i].plain for cells, _ in self._rows) for i in range(len(columns))]
        used = [i for i, column in enumerate(columns) if not (column.place and is_empty[i])]
        chosen = [i for i in used if not columns[i].place]
        for i in sorted((i for i in used if columns[i].place), key=lambda i: columns[i].place):
            if self._room(width, [*chosen, i], is_broken) >= 0:
                chosen.append(i)
        return chosen

    def _room(self, width: int, chosen: Sequence[int], is_broken: bool) -> int:
        return width - sum(self._least(i, is_broken) + _GAP for i in chosen)

    def _heading_width(self, i: int, is_broken: bool) -> int:
        return max(map(cell_len, self._heading(i, is_broken).split("\n"))) if self._has_header else 0

    def _heading(self, i: int, is_broken: bool) -> str:
        heading = self.columns[i].heading
        if not is_broken or "\n" in heading:
            return heading
        longest_part = max(cell_len(part.rstrip()) for part in _HEADING_ENDS.split(heading))
        return _broken(heading, _HEADING_ENDS, max(self._longest(i), longest_part))

    def _longest(self, i: int) -> int:
        return max((cell_len(cells[i].plain) for cells, _ in self._rows), default=0)

    def _most(self, i: int, is_broken: bool) -> int:
        return max(self._longest(i), self._heading_width(i, is_broken))

    def _least(self, i: int, is_broken: bool) -> int:
        """The width that a column needs at least."""
        most, kind = self._most(i, is_broken), self.columns[i].kind
        if kind is Kind.WORDS:
            return max(min(most, _LEAST_WORDS), self._heading_width(i, is_broken))
        if kind is Kind.SETTING:
            parts = (part for cells, _ in self._rows for part in _SETTING_ENDS.split(cells[i].plain))
            longest = max((cell_len(part.rstrip()) for part in parts), default=0)
            return max(min(longest, _LONGEST_SETTING), self._heading_width(i, is_broken))
        return most


def _harmless(one: Any) -> Any:
    """A text without what a terminal obeys, new lines aside; each is one blank, so that styles keep their places."""
    if isinstance(one, Text):
        if _is_harmless(one.plain):
            return one
        return Text("\n".join(map(printable, one.plain.split("\n"))), style=one.style, spans=list(one.spans))
    if isinstance(one, str) and not _is_harmless(one):
        return "\n".join(map(printable, one.split("\n")))
    return one


def _is_harmless(text: str) -> bool:
    return text.replace("\n", "").isprintable()


def _text(cell: Cell) -> Text:
    """A cell on one line, whatever the names in it hold."""
    if isinstance(cell, str):
        return Text(printable(cell))
    return Text(printable(cell.plain), style=cell.style)


def _broken(text: str, ends: re.Pattern[str], width: int) -> str:
    """A text over as many lines as it needs."""
    bounds = [0, *_breaks(text, ends, width), len(text)]
    return "\n".join(text[begin:end].rstrip() for begin, end in pairwise(bounds))


def _breaks(text: str, ends: re.Pattern[str], width: int) -> list[int]:
    """Where lines begin that are no wider than that: where a part ends, within a part only where it is too wide.

    A part that is too wide is broken where a path or a module's name has a part of its own. Linear in the text.
    """
    breaks: list[int] = []
    begin = at = 0
    for whole in ends.split(text):
        for part in [whole] if _is_within(whole, width) else _NAME_ENDS.split(whole):
            if at > begin and not _is_within(text[begin : at + len(part)], width):
                begin = at
                breaks.append(begin)
            at += len(part)
            while not _is_within(text[begin:at], width):
                most = range(min(at - begin, width), 1, -1)
                begin += next((n for n in most if cell_len(text[begin : begin + n]) <= width), 1)
                breaks.append(begin)
    return breaks


def _is_within(text: str, width: int) -> bool:
    """Whether a text is no wider than that, blanks at its end aside; of a long one only the beginning is looked at."""
    return cell_len(text[: 2 * width + 2].rstrip()) <= max(width, 1)
