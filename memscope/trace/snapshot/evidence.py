"""What a snapshot's keys tell about the torch that wrote it, and its settings."""

from __future__ import annotations

from typing import Any

from memscope._kernels import tape_format as vm
from memscope.errors import InputFileError
from memscope.trace.metadata import check_settings
from memscope.trace.schema import TieRule
from memscope.trace.snapshot.pickle_reader import Tape

Keys = frozenset[str]


def read_settings(tape: Tape, value: int | None) -> dict[str, Any] | None:
    """``allocator_settings`` as plain values: scalars, and tables of scalars; None where it is not there.

    An integer beyond int64 means "no limit" and becomes −1: builds before 2.3 wrote ``max_split_size`` as 2⁶⁴−1.
    """
    if value is None:
        return None
    if not tape.is_box(value, vm.DICT):
        raise InputFileError(tape.path, "'allocator_settings' is not a dict")
    settings: dict[str, Any] = {}
    for key, item in tape.mapping(value).items():
        if tape.is_box(item, vm.DICT):
            settings[key] = {k: _plain(tape, v) for k, v in tape.mapping(item).items()}
        elif item & vm.TAG_MASK != vm.BOX:
            settings[key] = _plain(tape, item)
    try:
        check_settings(settings)
    except ValueError as error:
        raise InputFileError(tape.path, str(error)) from error
    return settings


def _plain(tape: Tape, value: int) -> Any:
    scalar = tape.scalar(value)
    is_number = value & vm.TAG_MASK in (vm.INT, vm.WIDE) and not isinstance(scalar, float)
    return -1 if is_number and (scalar is None or scalar >= 1 << 63) else scalar


def torch_version(top: Keys, events: Keys, settings: Keys | None, segments: Keys) -> str | None:
    """The versions of torch that write these keys, as far as they tell; None if they do not.

    Source: the keys of the wheels 2.0 to 2.15, see the tests.
    """
    settings = settings or frozenset()
    if "internal_metadata" in events:
        return "2.15+"
    for key, keys, version in (
        ("host_segments", top, "2.14+"),
        ("max_cached_size", settings, "2.13"),
        ("pool_id", events, "2.12"),
        ("user_metadata", events, "2.10–2.11"),
    ):
        if key in keys:
            return version
    if "compile_context" in events:
        return "2.9" if "graph_capture_record_stream_reuse" in settings else "2.8–2.9"
    if "graph_capture_record_stream_reuse" in settings:
        return "2.9–2.12"
    if "time_us" in events:
        return "2.5–2.7" if "external_annotations" in top else "2.3–2.7" if settings else "2.2"
    if events:
        return "2.0–2.1" if "segment_pool_id" in segments or not segments else "2.0"
    if settings:
        return "2.5–2.8" if "external_annotations" in top else "2.3–2.8"
    return None if "segment_pool_id" in segments or not segments else "2.0"


def tie_rule(top: Keys, events: Keys, settings: Keys | None, segments: Keys) -> TieRule | None:
    """Which of several equal free blocks the recorded allocator took, where the keys prove it."""
    if "host_segments" in top or (settings is not None and "max_cached_size" in settings):
        return TieRule.SEGMENT_AGE
    if "pool_id" in events:
        return None if settings is None else TieRule.BLOCK_AGE
    if events:
        return TieRule.ADDRESS
    if settings is not None and "graph_capture_record_stream_reuse" not in settings:
        return TieRule.ADDRESS
    if segments and "segment_pool_id" not in segments:
        return TieRule.ADDRESS
    return None
