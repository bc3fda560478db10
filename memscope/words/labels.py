"""Text for pictures. Names in a trace come from anyone's program: they are shown as text, never read as markup."""

from __future__ import annotations

import re

from memscope.units import format_handle

ROW_LABELS = {
    "optimizer_state": "optimizer state",
    "kv_cache": "KV cache",
    "pending_frees": "pending frees",
    "free_releasable": "free, releasable",
    "free_pinned": "free, pinned",
    "free_private_pools": "free in private pools",
    "pytorch_reserved": "PyTorch, reserved",
    "cuda_context": "CUDA context",
    "non_pytorch": "non-PyTorch",
    "other_processes": "other processes",
    "unallocated": "reserved, not allocated",
}
"""Ledger rows whose name for people differs from their name for machines."""

NOT_MEASURED = "not measured"

SCATTER_MEANING = "0: all free memory is one block; towards 1: in ever smaller pieces"
"""Of fragmentation's ``scatter_frac``, which is no share of anything that the other columns hold."""

_SITE = re.compile(r"(.*?:-?\d+) (.*)", re.DOTALL)


def row_label(name: str) -> str:
    """A ledger row's name as people read it: ``optimizer state``."""
    return ROW_LABELS.get(name, name)


def printable(text: str, limit: int | None = None) -> str:
    """A text on one line, without control characters; a longer one loses its middle, not its end."""
    if limit is not None and len(text) > 2 * limit:
        text = text[: limit + 1] + text[-limit:]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    if limit is not None and len(text) > limit:
        head = limit // 3
        text = f"{text[:head]}…{text[-(limit - head - 1) :]}"
    return text


def plain(text: str, limit: int | None = None) -> str:
    """Escape a text for plotly's labels, which read some HTML; a longer one loses its middle, not its end.

    Line breaks and control characters become spaces, so that a name cannot fake a second line.
    """
    return printable(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def stream_label(stream: int | None) -> str:
    """A raw stream handle for people."""
    if stream is None:
        return "stream not recorded"
    return "default stream" if stream == 0 else f"stream {format_handle(stream)}"


def pool_label(pool: tuple[int, int] | None) -> str:
    """A pool id for people."""
    if pool is None:
        return "pool not recorded"
    return "default pool" if pool == (0, 0) else f"private pool ({pool[0]}, {pool[1]})"


def scatter_words(scatter_frac: float | None) -> str:
    """How scattered free memory is, a plain number so that no one adds it to percentages; empty where none is free."""
    return "" if scatter_frac is None else f"{scatter_frac:.2f}"


def split_site(site: str) -> tuple[str, str]:
    """Function and place of a frame written as ``file:line function``; the whole text as function if it is not one."""
    match = _SITE.fullmatch(site)
    return (match.group(2), match.group(1)) if match else (site, "")


def short_place(place: str) -> str:
    """The last two parts of a path: ``optimizer/optimizer.py:64``."""
    return "/".join(place.replace("\\", "/").split("/")[-2:])


def sentence(text: str) -> str:
    """The same beginning with a capital letter, unless it begins with a setting."""
    first = text.split(" ", 1)[0]
    return f"{text[0].upper()}{text[1:]}" if first.rstrip(":,;").isalpha() else text
