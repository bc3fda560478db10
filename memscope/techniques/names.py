"""What names of owners say: the list of layers that a module lies in."""

from __future__ import annotations


def layer_of(name: str) -> tuple[str, int] | None:
    """The list of layers that an owner's name lies in, and which one of it; None where it lies in none.

    >>> layer_of("model.layers.3.self_attn")
    ('model.layers', 3)
    """
    if " " in name:
        return None
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isascii() and part.isdigit():
            return ".".join(parts[:i]), int(part)
    return None
