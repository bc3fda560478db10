"""What is no memory snapshot, by its name: by its first bytes, or by what it holds where it could be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from mmap import mmap
from pathlib import Path

from memscope.errors import InputFileError

HOW_TO_RECORD = (
    "record one with torch.cuda.memory._record_memory_history() and torch.cuda.memory._dump_snapshot(), or memscope run"
)
_TIMELINE = "a timeline of torch.profiler or another tracer (traceEvents)"
_MEMORY_TIMELINE = "a memory timeline of torch.profiler (export_memory_timeline)"
_CHECKPOINT = "a checkpoint made by torch.save"
_STATS = "a table of the counters of torch.cuda.memory_stats()"

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"SQLite format 3\0", "an SQLite database, as nsys export writes it"),
    (b"memray\0", "a recording of memray, which follows the memory of the CPU"),
    (b"GGUF", "a GGUF file of weights"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a picture"),
    (b"%PDF-", "a PDF document"),
    (b"NVR\0", "a report of Nsight Compute"),
    (b"CDF\x01", "a NetCDF file"),
)
_PACKED = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x04\x22\x4d\x18", "an lz4 file"),
)
_SUFFIXES = {
    ".nsys-rep": "a report of Nsight Systems",
    ".qdrep": "a report of Nsight Systems",
    ".ncu-rep": "a report of Nsight Compute",
    ".qdstrm": "a recording of Nsight Systems",
}
"""Files whose first bytes do not tell them apart."""
_FIRST_KEYS_OF_A_TIMELINE = re.compile(
    rb"\s*(?:\{\s*\"(?:schemaVersion|traceEvents|displayTimeUnit|deviceProperties|distributedInfo|baseTimeNanoseconds"
    rb"|record_shapes|profile_memory|with_stack|with_flops|with_modules|otherData|systemTraceEvents)\""
    rb"|\[\s*\{\s*\"(?:ph|cat|pid|tid)\"\s*:)"
)
_PAGES = ((b"GPU Memory Timeline HTML", _MEMORY_TIMELINE), (b"Plotly.newPlot", "a page of plotly's charts"))
_TAR_AT = 257
_MAX_SAFETENSORS_HEADER = 100_000_000


def named_by_start(start: bytes) -> str | None:
    """What a file is that begins so, and what to do; None if that does not tell, or it may be a snapshot."""
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself: run git lfs pull"
    packed = next((what for magic, what in _PACKED if start.startswith(magic)), None)
    if packed is not None:
        return f"{packed}: unpack it first"
    if start[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "a tar archive: unpack it first"
    what = _what_by_start(start)
    return None if what is None else no_snapshot(what)


def named_by_suffix(path: Path) -> str | None:
    """What a file of unknown content is by the end of its name; None if that does not tell."""
    what = _SUFFIXES.get(path.suffix.lower())
    return None if what is None else no_snapshot(what)


def _what_by_start(start: bytes) -> str | None:
    known = next((what for magic, what in _MAGIC if start.startswith(magic)), None)
    if known is not None:
        return known
    if start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= _MAX_SAFETENSORS_HEADER:
        return "a safetensors file of weights"
    # pprof's first field is a list of pairs of indices: field 1, of few bytes, which begin with their own field 1.
    if len(start) > 2 and start[0] == 0x0A and 2 <= start[1] <= 12 and start[2] == 0x08:
        return "a profile in pprof's format, as jax.profiler.save_device_memory_profile writes it"
    if _FIRST_KEYS_OF_A_TIMELINE.match(start):
        return _TIMELINE
    return "the text of torch.cuda.memory_summary()" if b"PyTorch CUDA memory summary" in start else None


def named_by_page(page: mmap) -> str | None:
    """What an HTML page is that holds no snapshot, by words in it; None if they do not tell."""
    return next((no_snapshot(what) for words, what in _PAGES if page.find(words) >= 0), None)


def named_by_keys(keys: Sequence[str]) -> str | None:
    """What a dict is that is no snapshot, by its keys; None if they do not tell."""
    if "traceEvents" in keys:
        return no_snapshot(_TIMELINE)
    if any(key.startswith(("allocated_bytes.", "reserved_bytes.")) for key in keys):
        return no_snapshot(_STATS)
    if any(key in keys for key in ("state_dict", "model_state_dict", "optimizer_state_dict", "param_groups")):
        return no_snapshot(_CHECKPOINT)
    return None


def named_by_items(keys_of_first: Sequence[str] | None, lengths: Sequence[int], *, has_rows: bool) -> str | None:
    """What a list is that is no snapshot: by the keys of its first item, if that is a dict, or the lengths of lists.

    ``has_rows``: there are two, and the second holds lists again, as sizes by category for each of the times.
    """
    if keys_of_first is not None:
        return no_snapshot(_TIMELINE) if "ph" in keys_of_first else None
    if lengths and (set(lengths) == {4} or (has_rows and lengths[0] == lengths[1])):
        return no_snapshot(_MEMORY_TIMELINE)
    return None


def no_snapshot(what: str) -> str:
    """A thing that is no snapshot, and what to record instead."""
    return f"{what}, not a memory snapshot: {HOW_TO_RECORD}"


def torch_save_archive(path: Path) -> InputFileError:
    """The refusal of a zip archive that ``torch.save`` made of something else."""
    return InputFileError(path, f"is {_CHECKPOINT}, not a memory snapshot: {HOW_TO_RECORD}")


def old_checkpoint(path: Path) -> InputFileError:
    """The refusal of what ``torch.save`` wrote before its archives: a pickle of a magic number comes first."""
    return InputFileError(path, f"is {_CHECKPOINT} in its older format, not a memory snapshot: {HOW_TO_RECORD}")
