"""Byte units: the only place that parses and formats sizes."""

from __future__ import annotations

import re

from memscope.errors import UsageError

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30
TiB = 1 << 40

_UNITS = {
    "": 1,
    "b": 1,
    "k": KiB,
    "kb": 10**3,
    "kib": KiB,
    "m": MiB,
    "mb": 10**6,
    "mib": MiB,
    "g": GiB,
    "gb": 10**9,
    "gib": GiB,
    "t": TiB,
    "tb": 10**12,
    "tib": TiB,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")
_N_FAR_APART = 64
"""Times that a size must be another for a unit of its own."""
_MOST_DECIMALS = 3
_INT64_MAX = (1 << 63) - 1


def parse_bytes(text: str) -> int:
    """Read a size such as ``24GB``, ``80GiB``, ``512 MiB`` or ``1048576``.

    ``GB`` is 10⁹ and ``GiB`` is 2³⁰; a bare ``G`` means ``GiB``. A fraction of a byte is cut off.

    Raises
    ------
    UsageError
        If the text is not a size, or does not fit 63 bits.
    """
    match = _SIZE.match(text)
    factor = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise UsageError(f"{text!r} is not a size: write 24GB, 80GiB, 512MiB or a number of bytes")
    number = match.group(1)
    size = int(number) * factor if "." not in number else int(float(number) * factor)
    if size > _INT64_MAX:
        raise UsageError(f"{text!r} is larger than any device memory")
    return size


def format_handle(handle: int) -> str:
    """Format a raw handle, of which an int64 holds the 64 bits, as the unsigned hexadecimal number it is: ``0x2a``."""
    return f"{handle & 0xFFFF_FFFF_FFFF_FFFF:#x}"


def format_bytes(n_bytes: int) -> str:
    """Format a size for people, with one decimal: ``74.8 GiB``, ``512.0 MiB``, ``96 B``.

    The unit is the largest of B, KiB, MiB, GiB, TiB in which the rounded number is at least 1.
    """
    size = abs(int(n_bytes))
    sign = "-" if n_bytes < 0 else ""
    if size < KiB:
        return f"{sign}{size} B"
    for unit, name in ((KiB, "KiB"), (MiB, "MiB"), (GiB, "GiB")):
        if size < unit * 1023.95:
            return f"{sign}{size / unit:.1f} {name}"
    return f"{sign}{size / TiB:.1f} TiB"


def format_alike(*sizes: int) -> tuple[str, ...]:
    """Format sizes that are compared in the unit of the largest, with as many decimals as tell them apart.

    >>> format_alike(1181116006, 1069547520)
    ('1.10 GiB', '1.00 GiB')

    Of sizes that are far apart each has its own unit.
    """
    magnitudes = sorted({abs(int(size)) for size in sizes})
    if len(magnitudes) < 2 or magnitudes[0] * _N_FAR_APART < magnitudes[-1] or magnitudes[-1] < KiB:
        return tuple(map(format_bytes, sizes))
    plain = format_bytes(magnitudes[-1])
    unit = plain.rpartition(" ")[2]
    factor = _UNITS[unit.lower()]
    least = 1 if magnitudes[0] >= factor else 2
    for n_decimals in range(least, _MOST_DECIMALS + 1):
        texts = tuple(f"{size / factor:.{n_decimals}f} {unit}" for size in sizes)
        if len({text.lstrip("-") for text in texts}) == len(magnitudes):
            return texts
    return texts


def format_count(n: int) -> str:
    """Format a count with thousands separated: ``1,234,567``."""
    return f"{n:,}"


def format_items(n: int, one: str) -> str:
    """So many of something whose plural ends in s: ``1 request``, ``1,234 requests``."""
    return f"{format_count(n)} {one}{'' if n == 1 else 's'}"


def format_fraction(fraction: float) -> str:
    """Format a fraction between 0 and 1 as a percentage with one decimal: ``38.2 %``."""
    return f"{100 * fraction:.1f} %"


def format_duration(duration_ns: int) -> str:
    """Print a duration with a fitting unit and three significant digits at most: ``18.4 ms``."""
    for unit, unit_ns in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if duration_ns >= unit_ns:
            return f"{duration_ns / unit_ns:.3g} {unit}"
    return f"{duration_ns} ns"
