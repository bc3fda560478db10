"""Where a trace comes from and under which settings it was recorded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self

from memscope.trace.schema import SCHEMA_VERSION, TieRule

_SETTING_TYPES: dict[str, type | tuple[type, ...]] = {
    "PYTORCH_CUDA_ALLOC_CONF": str,
    "max_split_size": int,
    "garbage_collection_threshold": (int, float),
    "expandable_segments": bool,
    "roundup_power2_divisions": dict,
}


def check_settings(settings: dict[str, Any]) -> None:
    """Check that the allocator settings which decide anything have the types that torch gives them.

    Raises
    ------
    ValueError
        Naming the setting that has not.
    """
    for name, types in _SETTING_TYPES.items():
        if name in settings and not isinstance(settings[name], types):
            raise ValueError(f"allocator_settings: {name!r} is {str(settings[name])[:40]!r}, which is no such setting")
    table = settings.get("roundup_power2_divisions", {})
    wrong = next((key for key, value in table.items() if not isinstance(value, int) or not 0 <= value < 1 << 32), None)
    if wrong is not None:
        raise ValueError(f"allocator_settings: 'roundup_power2_divisions' has no valid number for {wrong!r}")


@dataclass(frozen=True, slots=True)
class TraceMetadata:
    """Provenance of a trace. ``None`` means "not recorded", never a default."""

    source: str
    """``torch-snapshot``, ``dry-run``, ``cuda`` or ``synthetic``."""
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
    notes: tuple[str, ...] = ()
    """What this way of recording cannot see, a sentence each."""
    extra: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def is_emulated(self) -> bool:
        """Whether the device was an emulated one: PyTorch's own allocator, on no GPU."""
        return self.extra.get("emulated") is True

    @property
    def origin(self) -> str:
        """The source in words: ``cuda on an emulated device`` is never taken for a recording of a GPU."""
        return f"{self.source} on an emulated device" if self.is_emulated else self.source

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary; :meth:`from_json` reads it back."""
        record = dataclasses.asdict(self)
        record["tie_rule"] = None if self.tie_rule is None else self.tie_rule.name.lower()
        record["notes"] = list(self.notes)
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
        check_settings(record.get("allocator_settings", {}))
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        if values.get("tie_rule") is not None:
            values["tie_rule"] = TieRule[values["tie_rule"].upper()]
        values["notes"] = tuple(values.get("notes", ()))
        for name in ("device_names", "device_total_bytes", "memory_fraction"):
            values[name] = {int(device): value for device, value in values.get(name, {}).items()}
        return cls(**values)
