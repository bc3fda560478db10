"""Every option of PyTorch's caching allocator that decides about device memory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import Self

from memscope._core import caching
from memscope.errors import UnknownNameError, UsageError
from memscope.names import shown
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, TieRule
from memscope.trace.trace import Trace
from memscope.units import GiB, MiB

DEFAULT_TIE_RULE = TieRule.SEGMENT_AGE
"""The newest release's: what is taken where nothing tells the release."""


def recorded_tie_rule(metadata: TraceMetadata) -> TieRule:
    """The rule that a recording was made under, as far as it tells."""
    return DEFAULT_TIE_RULE if metadata.tie_rule is None else metadata.tie_rule


_NAME = "roundup_power2_divisions"


def parse_divisions(value: str, *, fills_from_last: bool) -> tuple[int, ...]:
    """Divisions for each of the 16 size intervals, from ``8`` or ``[256:1,512:2,1024:4,>:8]``.

    The first size listed also covers everything smaller; sizes between listed ones that are not named get none;
    ``>`` covers the rest.

    Parameters
    ----------
    fills_from_last
        Whether ``>`` also replaces the last size listed, as releases before 2.9 read it.

    Raises
    ------
    UsageError
        If a size or a number of divisions is not a power of two.
    """
    if not value.startswith("["):
        return (_power_of_two(value, value),) * caching.N_ROUNDUP_INTERVALS
    table = [0] * caching.N_ROUNDUP_INTERVALS
    last = -1
    for entry in filter(None, value.strip("[]").split(",")):
        size, colon, text = entry.partition(":")
        if not colon:
            raise UsageError(f"allocator option {_NAME}: {entry!r} is not size:divisions")
        divisions = 0 if text == "0" else _power_of_two(text, value)
        if size == ">":
            first = max(last, 0) if fills_from_last else last + 1
            table[first:] = [divisions] * (caching.N_ROUNDUP_INTERVALS - first)
            continue
        interval = min(_power_of_two(size, value).bit_length() - 1, caching.N_ROUNDUP_INTERVALS - 1)
        if last < 0:
            table[: interval + 1] = [divisions] * (interval + 1)
        table[interval] = divisions
        last = interval
    return tuple(table)


def _power_of_two(text: str, whole: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 16 else 0
    if number <= 0 or number & (number - 1):
        raise UsageError(f"allocator option {_NAME}:{whole}: {text!r} is not a power of two")
    return number


_WITHOUT_EFFECT = frozenset(
    {
        "graph_capture_record_stream_reuse",
        "pinned_free_catch_all",
        "pinned_max_cached_size_mb",
        "pinned_max_round_threshold_mb",
        "pinned_num_register_threads",
        "pinned_reserve_segment_size_mb",
        "pinned_use_background_threads",
        "pinned_use_cuda_host_register",
        "release_lock_on_cudamalloc",
        "release_lock_on_hipmalloc",
    }
)
_OPTION = re.compile(r"([A-Za-z_0-9]+):(\[[^\[\]]*\]|[^,\[\]]*)(?:,|\Z)")


@dataclass(frozen=True, slots=True)
class CachingAllocatorConfig:
    """Settings of the native caching allocator; the defaults are PyTorch's.

    Attributes
    ----------
    max_split_bytes
        Blocks of this size and more are never split; None for no limit.
    max_non_split_rounding_bytes
        How much larger than the request an unsplittable block may be; in a string it is ``large_segment_size_mb``
        unless it is named.
    roundup_divisions
        Power-of-two divisions for each of 16 size intervals (below 2 MiB, 2 MiB, …, from 32 GiB), 0 for none.
    gc_threshold_frac
        Share of the memory limit above which unused segments are freed on a miss; 0.0 is off. Without a memory
        fraction it does nothing, as in PyTorch.
    is_expandable
        Expandable segments.
    large_segment_bytes
        Segment size for requests between 1 and 10 MiB.
    memory_fraction
        ``per_process_memory_fraction``; 1.0 is no limit.
    throws_on_malloc_oom
        ``throw_on_cudamalloc_oom``: reject at once what the device cannot hold.
    reserve
        ``expandable_segments_reserve``: a fraction of the device (float) or bytes (int); None for 9/8 of the device.
    backend
        ``native``; another one cannot be simulated here.
    unmodelled
        Options found that change memory in ways the simulator does not know.
    """

    max_split_bytes: int | None = None
    max_non_split_rounding_bytes: int = 20 * MiB
    roundup_divisions: tuple[int, ...] = (0,) * caching.N_ROUNDUP_INTERVALS
    gc_threshold_frac: float = 0.0
    is_expandable: bool = False
    large_segment_bytes: int = caching.LARGE_SEGMENT_BYTES
    memory_fraction: float = 1.0
    throws_on_malloc_oom: bool = False
    reserve: float | int | None = None
    backend: str = "native"
    unmodelled: tuple[str, ...] = ()

    @classmethod
    def parse(cls, conf: str, *, tie_rule: TieRule = DEFAULT_TIE_RULE) -> Self:
        """Read a ``PYTORCH_ALLOC_CONF`` string; the tie rule stands for the release whose reading is meant.

        Raises
        ------
        UsageError
            If PyTorch would refuse the string, or a value is not one of that option's.
        """
        values: dict[str, object] = {}
        unmodelled = []
        for name, value in _options(conf):
            if name == "roundup_power2_divisions":
                values["roundup_divisions"] = parse_divisions(value, fills_from_last=tie_rule == TieRule.ADDRESS)
            elif name in _READERS:
                field, read = _READERS[name]
                values[field] = read(name, value)
            elif name == "expandable_segments_reserve_by_class":
                unmodelled.append(name)
            elif name not in _WITHOUT_EFFECT:
                raise UnknownNameError(f"allocator option {name!r} is not one of PyTorch's", name, OPTION_NAMES)
        if "large_segment_bytes" in values:
            values.setdefault("max_non_split_rounding_bytes", values["large_segment_bytes"])
        return cls(**values, unmodelled=tuple(unmodelled))  # type: ignore[arg-type]

    @classmethod
    def from_trace(cls, trace: Trace, device: int | None = None) -> Self:
        """Settings that a trace was recorded under, as far as it tells; the rest is PyTorch's default.

        The recorded values win over the string, because the string is read differently by different releases.
        A string that cannot be read is kept in ``unmodelled`` rather than refused.
        """
        metadata = trace.metadata
        recorded = metadata.allocator_settings
        conf = metadata.alloc_conf or ""
        try:
            config = cls.parse(conf, tie_rule=recorded_tie_rule(metadata))
        except UsageError:
            config = cls(unmodelled=(shown(conf),))
        changes: dict[str, object] = {}
        if "max_split_size" in recorded:
            limit = int(recorded["max_split_size"])
            changes["max_split_bytes"] = limit if 0 < limit < (1 << 62) else None
        if "garbage_collection_threshold" in recorded:
            changes["gc_threshold_frac"] = float(recorded["garbage_collection_threshold"])
        if "expandable_segments" in recorded:
            changes["is_expandable"] = bool(recorded["expandable_segments"])
        table = recorded.get("roundup_power2_divisions")
        if isinstance(table, dict):
            changes["roundup_divisions"] = tuple(
                int(table.get(str(1 << i), 0)) for i in range(caching.N_ROUNDUP_INTERVALS)
            )
        if device is not None and device in metadata.memory_fraction:
            changes["memory_fraction"] = metadata.memory_fraction[device]
        return dataclasses.replace(config, **changes)  # type: ignore[arg-type]

    def to_settings(self) -> dict[str, Any]:
        """The settings that decide sizes and reclaims, as a snapshot's ``allocator_settings`` has them."""
        return {
            "max_split_size": -1 if self.max_split_bytes is None else self.max_split_bytes,
            "garbage_collection_threshold": self.gc_threshold_frac,
            "expandable_segments": self.is_expandable,
            "roundup_power2_divisions": {str(1 << i): n for i, n in enumerate(self.roundup_divisions)},
        }

    def to_conf(self) -> str:
        """Print as a ``PYTORCH_ALLOC_CONF`` string with every option that is not the default."""
        default = CachingAllocatorConfig()
        options = [f"backend:{self.backend}"] if self.backend != default.backend else []
        if self.is_expandable:
            options.append("expandable_segments:True")
        if self.max_split_bytes is not None:
            options.append(f"max_split_size_mb:{self.max_split_bytes // MiB}")
        if self.max_non_split_rounding_bytes != self.large_segment_bytes:
            options.append(f"max_non_split_rounding_mb:{self.max_non_split_rounding_bytes // MiB}")
        if any(self.roundup_divisions):
            options.append(f"roundup_power2_divisions:{_print_divisions(self.roundup_divisions)}")
        if self.gc_threshold_frac:
            options.append(f"garbage_collection_threshold:{self.gc_threshold_frac:g}")
        if self.large_segment_bytes != default.large_segment_bytes:
            options.append(f"large_segment_size_mb:{self.large_segment_bytes // MiB}")
        if self.memory_fraction != 1.0:
            options.append(f"per_process_memory_fraction:{self.memory_fraction:g}")
        if self.throws_on_malloc_oom:
            options.append("throw_on_cudamalloc_oom:True")
        if self.reserve is not None:
            text = f"{self.reserve:g}" if isinstance(self.reserve, float) else f"{self.reserve // GiB}G"
            options.append(f"expandable_segments_reserve:{text}")
        return ",".join(options)


def _options(conf: str) -> Iterator[tuple[str, str]]:
    """Names and values of a string; white space means nothing in it."""
    text = "".join(conf.split())
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            where = f"allocator settings {shown(conf)!r} cannot be read at {shown(text[position:])!r}"
            raise UsageError(f"{where}: write name:value,…")
        yield match.group(1), match.group(2)
        position = match.end()


def _print_divisions(divisions: tuple[int, ...]) -> str:
    if len(set(divisions)) == 1:
        return str(divisions[0])
    return "[" + ",".join(f"{1 << i}:{n}" for i, n in enumerate(divisions)) + "]"


def _read_mib(minimum: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        try:
            n = int(float(value))
        except (ValueError, OverflowError):
            n = -1
        if n < minimum or n > 1 << 40:
            raise UsageError(f"allocator option {name}:{value}: write a whole number of MiB from {minimum}")
        return n * MiB

    return read


def _read_boolean(name: str, value: str) -> bool:
    if value not in ("True", "False"):
        raise UsageError(f"allocator option {name}:{value}: write True or False")
    return value == "True"


def _read_threshold(name: str, value: str) -> float:
    number = _read_number(name, value)
    if not 0 < number < 1:
        raise UsageError(f"allocator option {name}:{value}: write a number between 0 and 1")
    return number


def _read_fraction(name: str, value: str) -> float:
    number = _read_number(name, value)
    if not 0 <= number <= 1:
        raise UsageError(f"allocator option {name}:{value}: write a number from 0 to 1")
    return number


def _read_number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"allocator option {name}:{value}: {value!r} is not a number") from None


def _read_reserve(name: str, value: str) -> float | int | None:
    """Malformed values are ignored by PyTorch with a warning; here they are refused."""
    if value.endswith("G") and value[:-1].isdigit():
        return int(value[:-1]) * GiB
    number = _read_number(name, value)
    if number <= 0:
        raise UsageError(f"allocator option {name}:{value}: write a fraction of the device or 40G")
    return number


def _read_backend(name: str, value: str) -> str:
    if value not in ("native", "cudaMallocAsync"):
        raise UsageError(f"allocator option {name}:{value}: write native or cudaMallocAsync")
    return value


_READERS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "backend": ("backend", _read_backend),
    "expandable_segments": ("is_expandable", _read_boolean),
    "expandable_segments_reserve": ("reserve", _read_reserve),
    "garbage_collection_threshold": ("gc_threshold_frac", _read_threshold),
    "large_segment_size_mb": ("large_segment_bytes", _read_mib(11)),
    "max_non_split_rounding_mb": ("max_non_split_rounding_bytes", _read_mib(20)),
    "max_split_size_mb": ("max_split_bytes", _read_mib(20)),
    "per_process_memory_fraction": ("memory_fraction", _read_fraction),
    "throw_on_cudamalloc_oom": ("throws_on_malloc_oom", _read_boolean),
}


OPTION_NAMES = tuple(
    sorted({*_READERS, *_WITHOUT_EFFECT, "roundup_power2_divisions", "expandable_segments_reserve_by_class"})
)
"""Every option that PyTorch knows."""


def forbidden_options(trace: Trace) -> dict[str, str]:
    """Options that something in a recording does not go with, and what; empty for most.

    Source: ``vllm/device_allocator/cumem.py``, which refuses expandable segments ("not compatible with memory pool");
    pytorch#173330, which brought them to ROCm.
    """
    name = "expandable_segments"
    if any(_CUMEM_FILE.search(text) for text in trace.strings):
        return {name: f"{name}, which vLLM's sleep mode (its CuMem pool) refuses"}
    if trace.metadata.is_rocm and not _has_expandable_segments(trace):
        return {name: f"{name}, which ROCm builds of PyTorch have only since 2.12"}
    return {}


def _has_expandable_segments(trace: Trace) -> bool:
    """Whether a ROCm build has expandable segments: it used some, or its version tells."""
    version = re.match(r"(\d+)\.(\d+)", trace.metadata.torch_version or "")
    is_newer = version is not None and (int(version[1]), int(version[2])) >= (2, 12)
    return is_newer or bool(trace.segments.is_expandable.any() or np.any(trace.action == Action.SEGMENT_MAP))


_CUMEM_FILE = re.compile(r"device_allocator[/\\]cumem\.py$")
