"""Traces whose every name would do something, if it were read as markup or reached a terminal as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

from memscope.trace.trace import Trace

MARKUP = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
"""What would run in a page that reads it."""
STEERING = "\x1b[31m\x1b]0;title\x07\u202e\u2066\u0085\0\r\n"
"""What would colour a terminal, name it, turn its letters round, end a text or begin a line."""
HOSTILE = MARKUP + STEERING
LONG = "A" * (1 << 20)
SHOWN = "<img src=x onerror=alert(1)>"
"""What a reader must find on the screen, letter by letter."""


def with_hostile_names(trace: Trace, *, n_long: int = 3) -> Trace:
    """The same trace, each of its names with a hostile beginning and end, some of them a megabyte long.

    What a name's middle says to the analyses (a cache's layer, a step) it still says.
    """
    strings = tuple(
        f"{HOSTILE} {text} {HOSTILE}{LONG if i < n_long else ''}{i}" for i, text in enumerate(trace.strings)
    )
    return dataclasses.replace(trace, strings=strings, metadata=_hostile_metadata(trace))


def _hostile_metadata(trace: Trace) -> Any:
    metadata = trace.metadata
    names = {device: f"{HOSTILE} {metadata.device_names.get(device, '')}" for device in trace.devices}
    return dataclasses.replace(
        metadata,
        source_file=f"{HOSTILE}train.py",
        torch_version=f"2.13.0{HOSTILE}",
        alloc_conf=f"{metadata.alloc_conf or ''}",
        device_names=names,
        notes=(*metadata.notes, f"{HOSTILE} note"),
        extra={**metadata.extra, HOSTILE: HOSTILE},
    )
