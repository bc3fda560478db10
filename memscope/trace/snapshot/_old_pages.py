"""Pages that ``_memory_viz.py`` wrote in torch 2.0, which hold what they draw instead of the snapshot.

``segment_plot`` wrote tables of the events, segments and blocks of a device; ``trace_plot`` wrote a list of elements,
which first come and then go, and whose first line has the address and the bytes. Both are turned into the snapshot that
they tell of. They are rare and small; so this is done with Python's own objects.
"""

from __future__ import annotations

import json
import pickle
import re
from bisect import bisect_left
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import Any

from memscope.errors import InputFileError
from memscope.trace.snapshot._other_kinds import no_snapshot

_STATE_DATA = re.compile(rb"let\s+trace_data\s*=\s*(?=\{)")
_PLOT_DATA = re.compile(rb"let\s+alloc_data\s*=\s*(?=\{)")
_STATE_NOTE = "A page of segment_plot of torch 2.0: one device, without times, settings, pools and kinds of segments."
_PLOT_NOTE = (
    "A page of trace_plot of torch 2.0: one device's allocations, without streams, times, segments and settings; what "
    "was allocated before the recording is shown as allocated at its beginning."
)
_PROFILE_PLOT = "a page of torch.profiler's memory (profile_plot of torch 2.0's _memory_viz.py), without addresses"
_MAX_PAGE_BYTES = 256 << 20
_MAX_LINES = 5_000_000
"""Of all distinct stacks of a page together; one has some thousand stacks of some dozen lines."""
_FRAME = re.compile(r"(?P<filename>.*):(?P<line>-?\d{1,9}):(?P<name>.*)", re.DOTALL)
_ELEMENT = re.compile(r"(?P<kind>[bs])(?P<addr>[0-9a-f]{1,16})_\d+ .*\((?P<size>\d{1,18}) bytes\)", re.DOTALL)


def snapshot_in_old_page(path: Path, page: mmap) -> tuple[bytes, str] | None:
    """The snapshot that an old page tells of, as a pickle, and what it lacks; None if it is no such page.

    Raises
    ------
    InputFileError
        If the page is one, but damaged.
    """
    for pattern, read, note in ((_STATE_DATA, _of_state_page, _STATE_NOTE), (_PLOT_DATA, _of_plot_page, _PLOT_NOTE)):
        found = pattern.search(page)
        if found is None:
            continue
        if len(page) > _MAX_PAGE_BYTES:
            raise InputFileError(path, "is a page of torch 2.0's _memory_viz.py, and larger than any such")
        try:
            text = page[found.end() :].decode("utf-8", "surrogatepass")
            data, _ = json.JSONDecoder().raw_decode(text)
            return pickle.dumps(read(data), protocol=4), note
        except _NoAddressError as error:
            raise InputFileError(path, f"is {no_snapshot(_PROFILE_PLOT)}") from error
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            reason = "is a page of torch 2.0's _memory_viz.py, but what it draws is damaged"
            raise InputFileError(path, f"{reason} ({type(error).__name__})") from error
    return None


class _NoAddressError(Exception):
    """What a page draws has no address: torch.profiler recorded it."""


class _Stacks:
    """Stacks of an old page: chains of (text, next) that share their ends."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._texts, self._chain = data["string_table"], data["suffix_table"]
        self._known: dict[int | None, list[dict[str, Any]]] = {None: []}
        self._n_left = _MAX_LINES

    def first(self, suffix: int) -> tuple[str, int | None]:
        """The first text of a chain, and the chain behind it."""
        text, rest = self._chain[suffix]
        return _text(self._texts[text]), rest

    def frames(self, suffix: int | None) -> list[dict[str, Any]]:
        """The frames of a chain, innermost first; one list for each chain."""
        if suffix not in self._known:
            found: list[dict[str, Any]] = []
            at = suffix
            while at is not None:
                self._n_left -= 1
                if self._n_left < 0:
                    raise ValueError("chains without end, or far more than any page has")
                line, at = self.first(at)
                if (frame := _frame(line)) is not None:
                    found.append(frame)
            self._known[suffix] = found
        return self._known[suffix]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _frame(line: str) -> dict[str, Any] | None:
    match = _FRAME.fullmatch(line)
    return None if match is None else match.groupdict() | {"line": int(match["line"])}


def _of_state_page(data: dict[str, Any]) -> dict[str, Any]:
    stacks, texts = _Stacks(data), data["string_table"]
    events = []
    for action, addr, size, stream, suffix in _rows(data["events"], "action", "addr", "size", "stream", "frames"):
        name = _text(texts[action])
        frames = stacks.frames(suffix)
        place = {"device_free": addr} if name == "oom" else {"addr": addr}
        # A request of a free and its completion behind it were folded into one.
        actions = ("free_requested", "free_completed") if name == "free" else (name,)
        events += [{"action": one, **place, "size": size, "stream": stream, "frames": frames} for one in actions]
    return {"segments": list(_segments(data, stacks)), "device_traces": [events]}


def _rows(table: dict[str, list[Any]], *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name] for name in names), strict=True)


def _segments(data: dict[str, Any], stacks: _Stacks) -> Iterator[dict[str, Any]]:
    columns = ("addr", "size", "real_size", "frames", "pending_free")
    blocks = sorted(_rows(data["blocks"], *columns), key=lambda row: row[0])
    starts = [block[0] for block in blocks]
    end = 0
    for address, total, stream in sorted(_rows(data["segments"], "addr", "size", "stream"), key=lambda row: row[0]):
        if address < end:
            raise ValueError("segments that overlap")
        end = address + total
        mine = blocks[bisect_left(starts, address) : bisect_left(starts, end)]
        yield {
            "device": 0,
            "address": address,
            "total_size": total,
            "stream": stream,
            # The page does not say of which pool a segment is; only the small one's are of 2 MiB.
            "segment_type": "small" if total == 2 << 20 else "large",
            "blocks": list(_tiled(address, total, mine, stacks)),
        }


def _tiled(address: int, total: int, blocks: list[tuple[Any, ...]], stacks: _Stacks) -> Iterator[dict[str, Any]]:
    """The blocks of a segment, with the free ones between them."""
    at = address
    for start, size, requested, suffix, is_pending in blocks:
        if start > at:
            yield {"address": at, "size": start - at, "requested_size": 0, "state": "inactive", "frames": []}
        state = "active_pending_free" if is_pending else "active_allocated"
        frames = stacks.frames(suffix)
        yield {"address": start, "size": size, "requested_size": requested, "state": state, "frames": frames}
        at = start + size
    if at < address + total:
        yield {"address": at, "size": address + total - at, "requested_size": 0, "state": "inactive", "frames": []}


def _of_plot_page(data: dict[str, Any]) -> dict[str, Any]:
    stacks = _Stacks(data)
    elements = [_element(stacks, suffix) for suffix in data["elements_info"]]
    is_live = [False] * len(elements)
    events: list[dict[str, Any]] = []
    for element in (*data["initially_allocated"], *data["actions"]):
        kind, more, frames = elements[element]
        names = ("free_requested", "free_completed") if is_live[element] else ("alloc",)
        if kind == "s":
            names = ("segment_free",) if is_live[element] else ("segment_alloc",)
        is_live[element] = not is_live[element]
        events += [{"action": name, **more, "stream": 0, "frames": frames} for name in names]
    return {"device_traces": [events]}


def _element(stacks: _Stacks, suffix: int) -> tuple[str, dict[str, int], list[dict[str, Any]]]:
    """Kind, address and bytes, and frames of what a page draws as one."""
    line, rest = stacks.first(suffix)
    match = _ELEMENT.match(line)
    if match is None:
        raise _NoAddressError
    return match["kind"], {"addr": int(match["addr"], 16), "size": int(match["size"])}, stacks.frames(rest)
