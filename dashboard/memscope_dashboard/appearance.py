"""The component library's theme, and the style variables that carry the pictures' colours into the page."""

from __future__ import annotations

from typing import Any

from memscope.figures.replay_curves import CURVE_COLORS
from memscope.figures.theme import FONT_FAMILY, MONO_FAMILY, THEMES, Theme

MANTINE_THEME: dict[str, Any] = {
    "fontFamily": FONT_FAMILY,
    "fontFamilyMonospace": MONO_FAMILY,
    "primaryColor": "gray",
    "primaryShade": {"light": 8, "dark": 3},
    "autoContrast": True,
    "defaultRadius": "sm",
    "fontSizes": {"xs": "12px", "sm": "14px", "md": "14px", "lg": "16px", "xl": "20px"},
    "cursorType": "pointer",
    "respectReducedMotion": True,
}


def style_variables() -> str:
    """CSS that defines every colour of both themes."""
    return "\n".join(_variables(theme) for theme in THEMES.values())


def _variables(theme: Theme) -> str:
    names = ("ink", "muted", "faint", "grid", "surface", "band", "red", "amber")
    colors = {name: getattr(theme, name) for name in names}
    colors |= {f"row-{name}": color for name, color in theme.rows.items()}
    colors |= {f"curve-{position}": color for position, color in enumerate(CURVE_COLORS[theme.name])}
    body = "".join(f"--ms-{name}:{color};" for name, color in colors.items())
    return f':root[data-mantine-color-scheme="{theme.name}"]{{{body}}}'
