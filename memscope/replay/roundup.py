"""The table behind ``roundup_power2_divisions``."""

from __future__ import annotations

from memscope._kernels.caching_rules import N_ROUNDUP_INTERVALS
from memscope.errors import UsageError

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
        return (_power_of_two(value, value),) * N_ROUNDUP_INTERVALS
    table = [0] * N_ROUNDUP_INTERVALS
    last = -1
    for entry in filter(None, value.strip("[]").split(",")):
        size, colon, text = entry.partition(":")
        if not colon:
            raise UsageError(f"allocator option {_NAME}: {entry!r} is not size:divisions")
        divisions = 0 if text == "0" else _power_of_two(text, value)
        if size == ">":
            first = max(last, 0) if fills_from_last else last + 1
            table[first:] = [divisions] * (N_ROUNDUP_INTERVALS - first)
            continue
        interval = min(_power_of_two(size, value).bit_length() - 1, N_ROUNDUP_INTERVALS - 1)
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
