"""What a recording notes beside the allocator's events, and how that is written into its folder.

A note says when it was made by counting, not by its time: it carries, for each device, how many allocator calls
(allocs, free requests, free completions) the device had made since the recording began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from typing_extensions import Self

from memscope.trace.categories import Category
from memscope.trace.schema import Action, MarkKind

Calls = tuple[int, ...]
"""Allocator calls of each device since the recording began."""

COUNTED = (Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED)
"""The calls that are counted."""

LENGTH_FIELDS = ("calls", "time_ns", "device", "cache_id", "n_tokens")
"""Numbers of a noted length: calls of its device until then, nanoseconds since the epoch, device, cache, tokens."""

_MAX_OWNERS = 1 << 30
"""Named in one drain, each as often as it was found again."""
TAGGED_SPAN = -1
TAGGED_TENSOR = -2
"""Strengths of the user's tags: below every category's, and a tensor's own tag below that of a block of code."""


class MarkNote(NamedTuple):
    """A step or phase; ``is_automatic`` where the program itself did not say it."""

    calls: Calls
    time_ns: int
    kind: int
    label: str
    is_automatic: bool = False


class AddressOwner(NamedTuple):
    """Who owns what lies at an address: the lowest strength wins."""

    device: int
    address: int
    category: int
    strength: int
    label: str


class OwnersNote(NamedTuple):
    """Owners found at one moment."""

    calls: Calls
    owners: tuple[AddressOwner, ...]


class TagNote(NamedTuple):
    """A tagged block of code; ``end`` is None while it runs."""

    begin: Calls
    end: Calls | None
    category: int
    label: str


class CacheLayerNote(NamedTuple):
    """How a layer keeps its tokens from a moment on; ``calls`` are the allocator calls of its device until then."""

    calls: int
    device: int
    cache_id: int
    layer: int
    kind: str
    n_sequences: int
    key_token_bytes: int
    value_token_bytes: int
    capacity_tokens: int
    window_tokens: int


class Sizes(NamedTuple):
    """How much there is of each list of :class:`RecordingNotes` from which the oldest are dropped."""

    marks: int
    owners: int
    tags: int
    visits: int
    cache_layers: int
    cache_lengths: int


@dataclass
class RecordingNotes:
    """Everything noted between two drains, or over a recording."""

    marks: list[MarkNote] = field(default_factory=list)
    owners: list[OwnersNote] = field(default_factory=list)
    tags: list[TagNote] = field(default_factory=list)
    open_tags: list[TagNote] = field(default_factory=list)
    visits: list[Any] = field(default_factory=list)
    """When the program came into a module, forwards or backwards: nanoseconds since the epoch and the module, in turn.

    One flat list, because a tuple for each would be work for the program's garbage collector.
    """
    cache_layers: list[CacheLayerNote] = field(default_factory=list)
    cache_lengths: list[int] = field(default_factory=list)
    """Lengths of caches, each as the numbers that ``LENGTH_FIELDS`` names; flat for the same reason."""
    name_of: Callable[[Any], str] = str
    """Name of a module that was visited; empty for none."""

    def sizes(self) -> Sizes:
        """How much there is of each."""
        return Sizes(*(len(getattr(self, name)) for name in Sizes._fields))

    def drop(self, sizes: Sizes) -> None:
        """Forget the oldest, which are kept elsewhere."""
        for name, size in zip(Sizes._fields, sizes, strict=True):
            del getattr(self, name)[:size]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary in which equal rows and texts are written once.

        Its keys are the file format's: ``claims`` and ``batches`` are the owners, ``spans`` the tags.
        """
        labels: dict[str, int] = {}
        batches: dict[tuple[AddressOwner, ...], int] = {}
        owners = [[list(note.calls), batches.setdefault(note.owners, len(batches))] for note in self.owners]
        return {
            "marks": [list(mark) for mark in self.marks],
            "claims": owners,
            "batches": [[[*row[:4], labels.setdefault(row.label, len(labels))] for row in batch] for batch in batches],
            "visits": [
                [time_ns, labels.setdefault(self.name_of(module), len(labels))]
                for time_ns, module in zip(self.visits[::2], self.visits[1::2], strict=True)
            ],
            "labels": list(labels),
            "cache_layers": [list(note) for note in self.cache_layers],
            "cache_lengths": list(self.cache_lengths),
            "spans": [list(tag) for tag in (*self.tags, *self.open_tags)],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError, IndexError
            If the record is not one.
        """
        labels = record["labels"]
        batches = [
            tuple(
                AddressOwner(as_int64(d), as_int64(a), _category(c), as_int64(s), str(labels[label]))
                for d, a, c, s, label in batch
            )
            for batch in record["batches"]
        ]
        n_owners = sum(len(batches[batch]) for _, batch in record["claims"])
        if n_owners > _MAX_OWNERS:
            raise ValueError(f"its notes name {n_owners:,} owners, more than {_MAX_OWNERS:,}")
        return cls(
            marks=[
                MarkNote(_calls(m[0]), as_int64(m[1]), int(MarkKind(m[2])), str(m[3]), bool(m[4]))
                for m in record["marks"]
            ],
            owners=[OwnersNote(_calls(calls), batches[batch]) for calls, batch in record["claims"]],
            tags=[_tag(*tag) for tag in record["spans"]],
            visits=[
                part for time_ns, label in record.get("visits", ()) for part in (as_int64(time_ns), str(labels[label]))
            ],
            cache_layers=_cache_layers(record.get("cache_layers", ())),
            cache_lengths=_cache_lengths(record.get("cache_lengths", ())),
        )

    @classmethod
    def joined(cls, logs: Sequence[RecordingNotes]) -> Self:
        """Several logs as one; a block of code that was open in all but the last is taken from where it ended."""
        closed = [tag for log in logs for tag in log.tags if tag.end is not None]
        still_open = [tag for log in logs[-1:] for tag in log.tags if tag.end is None]
        return cls(
            marks=[mark for log in logs for mark in log.marks],
            owners=[note for log in logs for note in log.owners],
            tags=closed + still_open,
            visits=[part for log in logs for part in log.visits],
            cache_layers=[note for log in logs for note in log.cache_layers],
            cache_lengths=[number for log in logs for number in log.cache_lengths],
        )


def as_int64(value: Any) -> int:
    """A whole number of a record, as it is.

    Raises
    ------
    ValueError
        If it is none, or does not fit 64 bits.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]!r} is no number that a recording notes")
    return value


def _small(value: Any) -> int:
    """A number that fits the columns of caches."""
    if not -(1 << 31) <= as_int64(value) < 1 << 31:
        raise ValueError(f"{value!r} numbers nothing that a recording notes")
    return int(value)


def _category(value: Any) -> int:
    return int(Category(as_int64(value)))


def _calls(values: Iterable[Any]) -> Calls:
    return tuple(as_int64(value) for value in values)


def _tag(begin: Iterable[Any], end: Iterable[Any] | None, category: Any, label: Any) -> TagNote:
    note = TagNote(_calls(begin), None if end is None else _calls(end), _category(category), str(label))
    # Devices are found while a program runs, and none is lost.
    if note.end is not None and len(note.end) < len(note.begin):
        raise ValueError(f"a tag begins with the counts of {len(note.begin)} devices and ends with {len(note.end)}")
    return note


def _cache_layers(record: Sequence[Sequence[Any]]) -> list[CacheLayerNote]:
    notes = []
    for calls, device, cache_id, layer, kind, *sizes in record:
        n_sequences, key_bytes, value_bytes, capacity, window = map(as_int64, sizes)
        of = as_int64(calls), _small(device), _small(cache_id), _small(layer), str(kind)
        _small(n_sequences)
        notes.append(CacheLayerNote(*of, n_sequences, key_bytes, value_bytes, capacity, window))
    return notes


def _cache_lengths(record: Sequence[Any]) -> list[int]:
    flat = [as_int64(value) for value in record]
    if len(flat) % len(LENGTH_FIELDS):
        raise ValueError("the lengths of caches are cut off")
    for name in ("device", "cache_id"):
        for value in flat[LENGTH_FIELDS.index(name) :: len(LENGTH_FIELDS)]:
            _small(value)
    return flat
