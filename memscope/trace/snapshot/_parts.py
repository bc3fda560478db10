"""Which value of a pickle or of JSON is the snapshot: the whole, or one of several that were put together."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from memscope.errors import InputFileError, SeveralSnapshotsError
from memscope.trace.snapshot._keys import SNAPSHOT_KEYS, TEXT_ID
from memscope.trace.snapshot._other_kinds import named_by_items, named_by_keys, old_checkpoint
from memscope.trace.snapshot._pickle_reader import NO_VALUE, Tape

MAX_PARTS = 1 << 12
"""More of them than any job has ranks, or any run writes snapshots."""
_MAX_KEYS_NAMED = 1000
_RANK = re.compile(r"(?:rank|gpu|device)?[-_ ]?(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True)
class ChosenSnapshot:
    """A snapshot's top-level keys and their values, and the rank that its key names."""

    top: dict[str, int]
    rank: int | None = None


def choose_snapshot(tape: Tape, part: str | None) -> ChosenSnapshot:
    """Find the snapshot on a tape.

    A dict or list may hold one or several: ranks that were gathered, dumps of one run, a snapshot beside other things.

    Parameters
    ----------
    part
        A key of the dict, or a position in the list, that holds it; needed where there are several.

    Raises
    ------
    SeveralSnapshotsError
        If there are several and none was named, or none is called so.
    InputFileError
        If there is none; what it is instead is said where that can be told.
    """
    whole = _top_of(tape, tape.root)
    if whole is not None:
        if part is not None:
            raise InputFileError(
                tape.path, f"holds one snapshot and no part of it called {part[:60]!a}: leave out the #"
            )
        return ChosenSnapshot(whole)
    parts = _parts(tape)
    if part is None and len(parts) == 1:
        ((name, top),) = parts.items()
        return ChosenSnapshot(top, _rank_of(tape, name))
    if part is not None and part in parts:
        return ChosenSnapshot(parts[part], _rank_of(tape, part))
    if parts:
        raise SeveralSnapshotsError(tape.path, parts, part)
    raise _refusal(tape)


def _rank_of(tape: Tape, part: str) -> int | None:
    """The rank that a key says; a position in a list says none, as it may be one of time."""
    found = _RANK.fullmatch(part) if tape.is_dict(tape.root) else None
    return None if found is None else int(found[1])


def _top_of(tape: Tape, value: int) -> dict[str, int] | None:
    """A snapshot's top-level keys, where a value is one; a bare list of segments gets its one."""
    if tape.is_dict(value):
        only = np.array([value], np.int64)
        tape.check_dicts(only, [])
        top = {key: int(tape.column(only, TEXT_ID[key])[0]) for key in SNAPSHOT_KEYS}
        found = {key: item for key, item in top.items() if tape.is_there(item)}
        return found if "segments" in found or "device_traces" in found else None
    if not tape.is_sequence(value):
        return None
    items = tape.sequence(value)
    if not len(items) or not tape.is_dict(int(items[0])):
        return None
    _, bad = tape.check_dicts(items, [])
    has_blocks = bad < 0 and not (tape.column(items, TEXT_ID["blocks"]) == NO_VALUE).any()
    return {"segments": value} if has_blocks else None


def _parts(tape: Tape) -> dict[str, dict[str, int]]:
    """The snapshots in the items of a dict or list, by their keys or positions."""
    if tape.is_dict(tape.root):
        items = tape.entries(tape.root, limit=MAX_PARTS)
    elif tape.is_sequence(tape.root):
        values = tape.sequence(tape.root)
        items = {str(i): int(value) for i, value in enumerate(values)} if len(values) <= MAX_PARTS else {}
    else:
        items = {}
    tops = {name: _top_of(tape, value) or _only_top_in(tape, value) for name, value in items.items()}
    return {name: top for name, top in tops.items() if top is not None}


def _only_top_in(tape: Tape, value: int) -> dict[str, int] | None:
    """The one snapshot among the values of a dict, as where each rank gathered its own with other things."""
    inside = tape.entries(value, limit=_MAX_KEYS_NAMED) if tape.is_dict(value) else {}
    tops = [top for item in inside.values() if (top := _top_of(tape, item)) is not None]
    return tops[0] if len(tops) == 1 else None


def _refusal(tape: Tape) -> InputFileError:
    root = tape.root
    if tape.is_dict(root):
        named = named_by_keys(list(tape.entries(root, limit=_MAX_KEYS_NAMED)))
        what = "its dict has neither 'segments' nor 'device_traces'"
    elif tape.is_sequence(root):
        items = tape.sequence(root)
        first = int(items[0]) if len(items) else NO_VALUE
        keys = list(tape.entries(first, limit=_MAX_KEYS_NAMED)) if tape.is_dict(first) else None
        lengths, bad = tape.lengths(items[:_MAX_KEYS_NAMED])
        last = tape.sequence(int(items[-1]))[:1] if len(items) == 2 and bad < 0 else ()
        has_rows = any(tape.is_sequence(int(value)) for value in last)
        named = named_by_items(keys, lengths.tolist() if bad < 0 else (), has_rows=has_rows)
        what = "its list holds something else than segments" if len(items) else "it is an empty list"
    elif tape.is_integer(root) and tape.scalar(root) is None:  # as the number that torch.save began with
        return old_checkpoint(tape.path)
    else:
        named, what = None, "it holds a single value"
    if named is not None:
        return InputFileError(tape.path, f"is {named}")
    return InputFileError(tape.path, f"is {tape.format}, but not a memory snapshot: {what}")
