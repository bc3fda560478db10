"""Where a trace comes from and under which settings it was recorded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self

from memscope.names import escaped, shown
from memscope.trace.schema import SCHEMA_VERSION, TieRule

CONF_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""Under which names the configuration string is found among the settings; ROCm builds have the second or the last."""
SNAPSHOT_SOURCE = "torch-snapshot"
"""The source of traces that are torch's memory snapshots."""
RMM_SOURCE = "rmm-log"
"""The source of traces that are logs of another allocator than PyTorch's: RMM's, the RAPIDS Memory Manager."""
AddressBases = tuple[tuple[int, int], ...]
"""Pairs of a stored address and what was taken off it and all above it, ascending; empty where nothing was."""

_MAX_NOTE = 1000
"""Characters of a note that are shown."""
_MAX_DEPTH = 8
"""How deep what is recorded beside the tables may be nested; what is written has 4 levels."""
_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


_RIGHT_SETTINGS: dict[str, _Check] = {
    **dict.fromkeys(CONF_VARIABLES, _is_text),
    "max_split_size": _is_int,
    "garbage_collection_threshold": _is_number,
    "expandable_segments": _is_bool,
    "roundup_power2_divisions": lambda value: isinstance(value, dict),
}


def _optional(is_right: _Check) -> _Check:
    return lambda value: value is None or is_right(value)


def _list_of(is_right: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def _dict_of(is_right: _Check) -> _Check:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))


def _is_part(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and _is_text(value[0]) and all(map(_is_int, value[1:]))


def _is_collectives(value: Any) -> bool:
    keys = {"n_communicators", "low_bytes", "high_bytes"}
    return isinstance(value, dict) and set(value) == keys and all(map(_is_int, value.values()))


def _is_base(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(number, int) and not isinstance(number, bool) for number in value)
        and 0 <= value[0] < 1 << 63
        and 0 <= value[1] < 1 << 64
    )


def _is_mismatch(value: Any) -> bool:
    numbers = ("device", "address", "recorded", "summed")
    return (
        isinstance(value, dict) and _is_text(value.get("field")) and all(_is_int(value.get(name)) for name in numbers)
    )


_RIGHT: dict[str, _Check] = {
    "source": _is_text,
    "source_file": _optional(_is_text),
    "torch_version": _optional(_is_text),
    "tie_rule": _optional(_is_text),
    "alloc_conf": _optional(_is_text),
    "allocator_settings": lambda value: isinstance(value, dict),
    "device_names": _dict_of(_is_text),
    "device_total_bytes": _dict_of(_is_int),
    "memory_fraction": _dict_of(_is_number),
    "rank": _optional(_is_int),
    "created_ns": _optional(_is_int),
    "n_events_lost": _optional(_is_int),
    "max_entries": _optional(_is_int),
    "has_segment_events": _is_bool,
    "has_pool_ids": _is_bool,
    "block_layout_recorded": _is_bool,
    "notes": _list_of(_is_text),
    "address_bases": lambda value: _list_of(_is_base)(value) and value == sorted(value),
    "extra": lambda value: isinstance(value, dict),
    "schema_version": _is_int,
}
"""What each field of a record may be."""
_RIGHT_EXTRAS: dict[str, _Check] = {
    "emulated": _is_bool,
    "rocm": _is_bool,
    "emulated_values_read_back": _is_int,
    "context_bytes_modelled": _optional(_is_int),
    "emulated_overhead_bytes": _is_int,
    "collectives_modelled": _optional(_is_collectives),
    "device_parts": _dict_of(_list_of(_is_part)),
    "segment_total_mismatches": _list_of(_is_mismatch),
    "n_segment_total_mismatches": _is_int,
}
"""What those of the further entries may be that answers depend on."""


def check_plain(record: Any) -> None:
    """Check that a record can be written as JSON again: not nested too deep, and every number one of JSON's.

    Raises
    ------
    ValueError
        If it cannot.
    """
    level = [record]
    for _ in range(_MAX_DEPTH):
        if any(isinstance(value, float) and not math.isfinite(value) for value in level):
            raise ValueError("a number that is recorded beside the events is not finite")
        level = [
            inside
            for value in level
            for inside in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
    if level:
        raise ValueError("what is recorded beside the events is nested deeper than any torch writes")


def check_settings(settings: dict[str, Any]) -> None:
    """Check that the allocator settings can be written again, and that those which decide anything could be torch's.

    Raises
    ------
    ValueError
        Naming the setting that has not.
    """
    check_plain(settings)
    for name, is_right in _RIGHT_SETTINGS.items():
        if name in settings and not is_right(settings[name]):
            raise ValueError(f"allocator_settings: {name!r} is {str(settings[name])[:40]!r}, which is no such setting")
    table = settings.get("roundup_power2_divisions", {})
    wrong = next((key for key, value in table.items() if not isinstance(value, int) or not 0 <= value < 1 << 32), None)
    if wrong is not None:
        raise ValueError(f"allocator_settings: 'roundup_power2_divisions' has no valid number for {wrong!r}")


@dataclass(frozen=True, slots=True)
class TraceMetadata:
    """Provenance of a trace. ``None`` means "not recorded", never a default. Its texts are on one line each."""

    source: str
    """``torch-snapshot``, ``dry-run``, ``cuda``, ``synthetic``, or ``rmm-log``, which no PyTorch recorded."""
    source_file: str | None = None
    """Base name of the file or script that it was made from."""
    torch_version: str | None = None
    """As recorded, or as far as a snapshot's keys tell it (``2.13+``, ``2.2–2.7``)."""
    tie_rule: TieRule | None = None
    """Which of several equal free blocks the recorded allocator takes."""
    alloc_conf: str | None = None
    """The ``PYTORCH_ALLOC_CONF`` string in force; ``""`` is the default configuration."""
    allocator_settings: dict[str, Any] = field(default_factory=dict)
    """The snapshot's ``allocator_settings`` as found (scalars, and one table of integers)."""
    device_names: dict[int, str] = field(default_factory=dict)
    device_total_bytes: dict[int, int] = field(default_factory=dict)
    memory_fraction: dict[int, float] = field(default_factory=dict)
    """Per device, where it was recorded; a device missing here is "not recorded"."""
    rank: int | None = None
    created_ns: int | None = None
    n_events_lost: int | None = None
    """Events dropped by the recorder, if it counted them; a bare snapshot cannot tell."""
    max_entries: int | None = None
    has_segment_events: bool = True
    has_pool_ids: bool = False
    """Whether events carry their pool; before torch 2.12 they do not."""
    block_layout_recorded: bool = True
    """False where the final segments and blocks are not part of the source."""
    address_bases: AddressBases = ()
    """What was taken off addresses of the upper half of the address space, which an int64 cannot order."""
    notes: tuple[str, ...] = ()
    """What this way of recording cannot see, a sentence each."""
    extra: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        # They are anyone's, and every surface has a line or a cell for each.
        texts: dict[str, Any] = {
            name: shown(text)
            for name in ("source", "source_file", "torch_version")
            if (text := getattr(self, name)) is not None
        }
        texts["alloc_conf"] = None if self.alloc_conf is None else escaped(self.alloc_conf)
        texts["device_names"] = {device: shown(name) for device, name in self.device_names.items()}
        texts["notes"] = tuple(map(escaped, self.notes))
        for name, value in texts.items():
            object.__setattr__(self, name, value)

    @property
    def shown_notes(self) -> tuple[str, ...]:
        """The notes, each not too long."""
        return tuple(shown(note, _MAX_NOTE) for note in self.notes)

    @property
    def modelled_context_bytes(self) -> int | None:
        """What the CUDA context takes of a device that is modelled or emulated; None where it is a real one."""
        size = self.extra.get("context_bytes_modelled")
        if size is None and self.is_emulated:
            size = self.extra.get("emulated_overhead_bytes")
        return size if isinstance(size, int) else None

    @property
    def is_emulated(self) -> bool:
        """Whether the device was an emulated one: PyTorch's own allocator, on no GPU."""
        return self.extra.get("emulated") is True

    @property
    def is_rocm(self) -> bool:
        """Whether a ROCm build of PyTorch recorded it, as far as its settings and stacks tell."""
        return self.extra.get("rocm") is True

    @property
    def is_of_pytorch(self) -> bool:
        """Whether PyTorch's caching allocator served the requests, so that its rules tell sizes of blocks."""
        return self.source != RMM_SOURCE

    @property
    def origin(self) -> str:
        """The source in words: ``cuda on an emulated device`` is never taken for a recording of a GPU."""
        return f"{self.source} on an emulated device" if self.is_emulated else self.source

    def real_address(self, address: int) -> int:
        """The address that the process saw, unsigned, of one that the trace holds; for everything that is shown."""
        base = next((base for first, base in reversed(self.address_bases) if address >= first), 0)
        return address + base

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary; :meth:`from_json` reads it back."""
        record = dataclasses.asdict(self)
        record["tie_rule"] = None if self.tie_rule is None else self.tie_rule.name.lower()
        record["notes"] = list(self.notes)
        record["address_bases"] = [list(pair) for pair in self.address_bases]
        for name in ("device_names", "device_total_bytes", "memory_fraction"):
            record[name] = {str(device): value for device, value in record[name].items()}
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; keys of newer minor versions are ignored.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the record is not one.
        """
        check_plain(record)
        for name, is_right in _RIGHT.items():
            if name in record and not is_right(record[name]):
                raise ValueError(f"{name!r} is {str(record[name])[:40]!r}, which is no such thing")
        for name, is_right in _RIGHT_EXTRAS.items():
            if name in record.get("extra", {}) and not is_right(record["extra"][name]):
                raise ValueError(f"{name!r} is {str(record['extra'][name])[:40]!r}, which is no such thing")
        check_settings(record.get("allocator_settings", {}))
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        if values.get("tie_rule") is not None:
            values["tie_rule"] = TieRule[values["tie_rule"].upper()]
        values["notes"] = tuple(values.get("notes", ()))
        values["address_bases"] = tuple((first, base) for first, base in values.get("address_bases", ()))
        for name in ("device_names", "device_total_bytes", "memory_fraction"):
            values[name] = {int(device): value for device, value in values.get(name, {}).items()}
        return cls(**values)
