"""Colours: every row has one, and text reads well on it."""

from __future__ import annotations

import pytest

from memscope.attribution.ledger import ROW_MEANINGS
from memscope.errors import UsageError
from memscope.figures.theme import DARK, LIGHT, THEMES, theme_named
from memscope.trace.categories import Category


def luminance(color: str) -> float:
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_every_ledger_row_has_a_colour_and_readable_ink(theme: object) -> None:
    assert theme in (LIGHT, DARK)
    for name in [*(category.label for category in Category), *ROW_MEANINGS]:
        color = theme.color(name)  # type: ignore[attr-defined]
        assert contrast(theme.ink_on(name), color) >= 4.5, name  # type: ignore[attr-defined]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_reads_well_on_the_surface(theme: object) -> None:
    for ink in (theme.ink, theme.muted, theme.red, theme.amber):  # type: ignore[attr-defined]
        assert contrast(ink, theme.surface) >= 4.5  # type: ignore[attr-defined]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="'pink'"):
        theme_named("pink")
