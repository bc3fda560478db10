"""Colours: one palette for the app, the reports and the README, in a light and a dark cut.

The category colours are told apart under the three common colour-blindnesses and in grey; red is kept for errors and
out-of-memory, amber for trust.
"""

from __future__ import annotations

from dataclasses import dataclass

from memscope.attribution.driver_usage import (
    COLLECTIVES,
    CUDA_CONTEXT,
    NON_PYTORCH,
    OTHER_PROCESSES,
    PYTORCH_RESERVED,
    UNEXPLAINED,
)
from memscope.attribution.ledger import FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE, PENDING_FREES, ROUNDING
from memscope.errors import UsageError

FONT_FAMILY = 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
MONO_FAMILY = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'

FREE_ROWS = (FREE_RELEASABLE, FREE_PINNED, FREE_PRIVATE_POOLS)
"""The ledger's rows of free memory: drawn hatched, from the lightest hatch to the darkest."""
HATCHED_ROWS = (*FREE_ROWS, UNEXPLAINED)
"""Every row that is drawn hatched: free memory, and what nothing explains."""


@dataclass(frozen=True, slots=True)
class Theme:
    """Every colour that a picture uses.

    Attributes
    ----------
    name
        ``light`` or ``dark``.
    rows
        Colour of each ledger row by its name: the categories, rounding, pending frees, free memory, and those of the
        device's own count.
    ink, muted, faint, grid, surface
        Text, secondary text, marks that should hardly be seen, grid lines, and what lies behind the picture.
    band
        What is merged by level of detail.
    """

    name: str
    rows: dict[str, str]
    ink: str
    muted: str
    faint: str
    grid: str
    surface: str
    band: str
    red: str
    amber: str

    def color(self, row: str) -> str:
        """Colour of a ledger row or category."""
        return self.rows[row]

    def ink_on(self, row: str) -> str:
        """The text colour, dark or light, that reads better on a row's colour."""
        red, green, blue = (int(self.rows[row][i : i + 2], 16) / 255 for i in (1, 3, 5))
        luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        return "#07090C" if luminance > 0.18 else "#FFFFFF"


LIGHT = Theme(
    name="light",
    rows={
        "weights": "#0072B2",
        "gradients": "#56B4E9",
        "optimizer_state": "#8073AC",
        "activations": "#E69F00",
        "kv_cache": "#009E73",
        "inputs": "#B2DF8A",
        "temporaries": "#F0E442",
        "workspace": "#A6761D",
        "communication": "#CC79A7",
        "unknown": "#8A8F98",
        ROUNDING: "#C9CED6",
        PENDING_FREES: "#5B6270",
        FREE_RELEASABLE: "#D5D9E0",
        FREE_PINNED: "#B4BAC4",
        FREE_PRIVATE_POOLS: "#989FAB",
        PYTORCH_RESERVED: "#D5D9E0",
        CUDA_CONTEXT: "#7C8493",
        COLLECTIVES: "#CC79A7",
        NON_PYTORCH: "#5B6270",
        OTHER_PROCESSES: "#2A8C95",
        UNEXPLAINED: "#989FAB",
    },
    ink="#14181F",
    muted="#5B6270",
    faint="#C4C9D2",
    grid="#ECEEF2",
    surface="#FFFFFF",
    band="#A9AFBA",
    red="#C92A2A",
    amber="#B35C00",
)

DARK = Theme(
    name="dark",
    rows={
        "weights": "#4AA3DF",
        "gradients": "#8CD0F5",
        "optimizer_state": "#B2A6DB",
        "activations": "#F5BC42",
        "kv_cache": "#2FC79B",
        "inputs": "#CDEBAE",
        "temporaries": "#F4EC7A",
        "workspace": "#CDA04F",
        "communication": "#E0A3C5",
        "unknown": "#9AA0AA",
        ROUNDING: "#59616E",
        PENDING_FREES: "#C9CED6",
        FREE_RELEASABLE: "#3A424E",
        FREE_PINNED: "#525B69",
        FREE_PRIVATE_POOLS: "#6B7584",
        PYTORCH_RESERVED: "#3A424E",
        CUDA_CONTEXT: "#8B94A3",
        COLLECTIVES: "#E0A3C5",
        NON_PYTORCH: "#6B7280",
        OTHER_PROCESSES: "#56BCC5",
        UNEXPLAINED: "#6B7584",
    },
    ink="#E8EBF0",
    muted="#9AA3B0",
    faint="#3C4450",
    grid="#232932",
    surface="#15191F",
    band="#6B7584",
    red="#FF6B6B",
    amber="#F2A93B",
)

THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def theme_named(name: str) -> Theme:
    """The theme of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in THEMES:
        raise UsageError(f"{name!r} is not a colour scheme: use {' or '.join(THEMES)}")
    return THEMES[name]
