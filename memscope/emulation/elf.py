"""What a shared library wants from others: the few tables of a 64-bit little-endian ELF file that say so.

Source: the System V ABI's ELF chapters, and the symbol versioning sections of the Linux Standard Base.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memscope.errors import InputFileError

_SHT_DYNAMIC, _SHT_DYNSYM = 6, 11
_SHT_VERNEED, _SHT_VERSYM = 0x6FFFFFFE, 0x6FFFFFFF
_DT_NEEDED = 1
_SHN_UNDEFINED = 0
_VERSION_MASK = 0x7FFF


@dataclass(frozen=True, slots=True)
class Wanted:
    """An undefined symbol: its name, and the version and the library that it is wanted from, empty where unsaid."""

    name: str
    version: str
    library: str


@dataclass(frozen=True, slots=True)
class Wants:
    """What one library wants: the libraries by their sonames, and the symbols."""

    libraries: tuple[str, ...]
    symbols: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


def read_wants(path: Path) -> Wants:
    """Read the needed libraries and the undefined symbols of a shared library.

    Raises
    ------
    InputFileError
        If the file is not a 64-bit little-endian ELF library.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            if image[:6] != b"\x7fELF\x02\x01":
                raise InputFileError(path, "is not a 64-bit little-endian ELF library")
            return _read(image)
    except (ValueError, OverflowError, struct.error, OSError) as error:
        raise InputFileError(path, f"cannot be read as an ELF library: {error}") from error


def _read(image: mmap.mmap) -> Wants:
    sections = list(_sections(image))
    found = {section.kind: section for section in sections}
    symbols, dynamic = found.get(_SHT_DYNSYM), found.get(_SHT_DYNAMIC)
    needed: list[str] = []
    if dynamic is not None:
        names = sections[dynamic.link].offset
        for tag, value in struct.iter_unpack("<qQ", image[dynamic.offset : dynamic.offset + dynamic.size]):
            if tag == _DT_NEEDED:
                needed.append(_text(image, names + value))
    if symbols is None:
        return Wants(tuple(needed), ())
    versions = _versions(image, sections, found.get(_SHT_VERNEED))
    return Wants(tuple(needed), tuple(_undefined(image, sections, symbols, found.get(_SHT_VERSYM), versions)))


def _sections(image: mmap.mmap) -> Iterator[_Section]:
    (table,) = struct.unpack_from("<Q", image, 0x28)
    entry_size, count = struct.unpack_from("<HH", image, 0x3A)
    for i in range(count):
        _, kind, _, _, offset, size, link = struct.unpack_from("<IIQQQQI", image, table + i * entry_size)
        yield _Section(kind, offset, size, link)


def _text(image: mmap.mmap, offset: int) -> str:
    return image[offset : image.find(b"\0", offset)].decode("utf-8", "replace")


def _versions(image: mmap.mmap, sections: list[_Section], section: _Section | None) -> dict[int, tuple[str, str]]:
    """(version, library) of each version number that undefined symbols carry."""
    versions: dict[int, tuple[str, str]] = {}
    if section is None:
        return versions
    names, position = sections[section.link].offset, section.offset
    while True:
        _, count, library, first, to_next = struct.unpack_from("<HHIII", image, position)
        entry = position + first
        for _ in range(count):
            _, _, number, name, to_next_entry = struct.unpack_from("<IHHII", image, entry)
            versions[number & _VERSION_MASK] = _text(image, names + name), _text(image, names + library)
            entry += to_next_entry
        if to_next == 0:
            return versions
        position += to_next


def _undefined(
    image: mmap.mmap,
    sections: list[_Section],
    symbols: _Section,
    numbers: _Section | None,
    versions: dict[int, tuple[str, str]],
) -> Iterator[Wanted]:
    names = sections[symbols.link].offset
    table = struct.iter_unpack("<IBBHQQ", image[symbols.offset : symbols.offset + symbols.size])
    for i, (name, _, _, section_index, _, _) in enumerate(table):
        if section_index != _SHN_UNDEFINED or name == 0:
            continue
        number = struct.unpack_from("<H", image, numbers.offset + 2 * i)[0] & _VERSION_MASK if numbers else 0
        yield Wanted(_text(image, names + name), *versions.get(number, ("", "")))
