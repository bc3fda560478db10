"""Names out of a recording, which are anyone's: as they are shown."""

from __future__ import annotations

MAX_SHOWN = 300
"""Characters of a name that are shown; of a longer one the middle is left out."""
MAX_SEARCHED = 4000
"""Characters of a name that patterns are looked for in."""


def escaped(text: str) -> str:
    r"""A text on one line: what cannot be printed is written out.

    >>> escaped("layer\n\x1b[31m")
    'layer\\n\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(text: str, limit: int = MAX_SHOWN) -> str:
    """A name as it is shown: on one line, what cannot be printed escaped, and not too long."""
    text = escaped(text[: limit + 1] + text[-limit:] if len(text) > 2 * limit else text)
    if len(text) > limit:
        text = f"{text[: limit // 3]}…{text[-(limit - limit // 3 - 1) :]}"
    return text


def searchable(text: str) -> str:
    """A name as patterns are looked for in it: of one so long that nobody wrote it, its two ends.

    What a regular expression takes may grow with the square of a text.
    """
    return text if len(text) <= MAX_SEARCHED else f"{text[: MAX_SEARCHED // 2]}\n{text[-(MAX_SEARCHED // 2) :]}"
