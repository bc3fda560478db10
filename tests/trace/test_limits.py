"""Memory stays in proportion to the file: those made to fill it are read within bounds or refused, in one line."""

import gzip
import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SHIPPED = Path(__file__).parents[2] / "traces" / "tiny-out-of-memory.memscope"
MIB = 1 << 20
PICKLE_BYTES = 6 * MIB
MAX_GROWTH = 150 * MIB
"""64 MiB, 8 bytes for each of the pickle's, and some for the process."""

needs_address_limit = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer reserves more addresses than any limit"
)

READ = """
import resource, sys
from pathlib import Path
from memscope.errors import MemscopeError
from memscope.trace.open import open_trace
import memscope.trace.container, memscope.trace.snapshot.read, pyarrow.parquet

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before = peak()
limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    said = f"{open_trace(sys.argv[1]).n_events} events"
except MemscopeError as error:
    said = str(error)
print(peak() - before)
print(said)
"""


def opened(path: Path, max_growth: int) -> tuple[int, str]:
    """How far the peak of resident memory grows while a file is opened, and what comes of it; both in one process.

    The address space may grow by four times the bound: allocators reserve what they do not use.
    """
    command = [sys.executable, "-c", READ, str(path), str(4 * max_growth)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    growth, said = done.stdout.splitlines()
    return int(growth), said


def many(piece: bytes, before: bytes = b"", after: bytes = b".") -> bytes:
    return before + piece * (PICKLE_BYTES // len(piece)) + after


def each(pieces: Callable[[int], bytes], before: bytes = b"", after: bytes = b".") -> bytes:
    return before + b"".join(map(pieces, range(PICKLE_BYTES // len(pieces(0))))) + after


WORDS = b"X\x06\x00\x00\x00actionq\x00X\x08\x00\x00\x00snapshotq\x01X\x04\x00\x00\x00sizeq\x02000"
EVENTS = b"}(X\x08\x00\x00\x00segments]X\x0d\x00\x00\x00device_traces](]"
SEGMENTS = b"}(X\x08\x00\x00\x00segments]"
FILLED = {str(i): None for i in range(30_000)}

ATTACKS: dict[str, Callable[[], bytes]] = {
    "one event in a million places": lambda: (
        WORDS + b"}(h\x00h\x01h\x02K\x01uq\x030" + many(b"(" + b"h\x03" * 1000 + b"e", EVENTS, b"eu.")
    ),
    "one event copied": lambda: WORDS + many(b"(}(h\x00h\x01h\x02K\x01u" + b"2" * 1000 + b"e", EVENTS, b"eu."),
    "events of one key": lambda: many(b"}K\x01K\x01sa", EVENTS, b"eu."),
    "events of the fewest bytes": lambda: WORDS + many(b"}(h\x00h\x01h\x02K\x01ua", EVENTS, b"eu."),
    "segments of the fewest bytes": lambda: many(b"}(K\x01K\x02K\x03K\x04ua", SEGMENTS, b"u."),
    "empty lists": lambda: many(b"]0"),
    "empty dicts on the stack": lambda: many(b"}"),
    "tuples in tuples": lambda: many(b"\x85", b"N"),
    "stored for nothing": lambda: many(b"\x94", b"N"),
    "stored far out": lambda: many(b"N0", after=b"Nr" + (PICKLE_BYTES - 9).to_bytes(4, "little") + b"."),
    "copies on the stack": lambda: many(b"2", b"N"),
    "copies in a list": lambda: many(b"(N" + b"2" * 60_000 + b"e", b"]"),
    "marks": lambda: many(b"("),
    "two lists in turns": lambda: many(b"h\x00K\x01a0h\x01K\x01a0", b"]\x94]\x94"),
    "a dict that grows": lambda: many(b"NNs", b"}"),
    "dicts of many shapes": lambda: each(lambda i: b"}M%bNsa" % (i % 65536).to_bytes(2, "little"), b"]"),
    "floats in decimals": lambda: many(b"F\n0", after=b"N."),
    "floats": lambda: many(b"G123456780", after=b"N."),
    "texts": lambda: each(lambda i: b"\x8c\x03%b0" % i.to_bytes(3, "little"), after=b"N."),
    "tuples": lambda: each(lambda i: b"J%b\x850" % i.to_bytes(4, "little"), after=b"N."),
    "settings": lambda: pickle.dumps({"segments": [], "allocator_settings": dict.fromkeys(FILLED, FILLED)}, 4),
}


@needs_address_limit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_opcodes_fill_memory(tmp_path: Path, attack: str) -> None:
    path = tmp_path / "attack.pickle"
    path.write_bytes(b"\x80\x04" + ATTACKS[attack]())
    growth, said = opened(path, MAX_GROWTH)
    assert growth < MAX_GROWTH
    assert said.startswith(f"{path}: ") or said.endswith(" events")
    assert "\n" not in said


@needs_address_limit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_gzip_of_equal_events_is_bounded_by_its_own_size(tmp_path: Path) -> None:
    # A megabyte of events, then 8 kB that do not pack, and so on: 60 to 100 times its size, which is no bomb yet.
    rng = random.Random(1)
    noise = (b"B" + (8 << 10).to_bytes(4, "little") + rng.randbytes(8 << 10) + b"0" for _ in range(40))
    events = b"(" + b"}(h\x00h\x01h\x02K\x01u" * 1000 + b"e"
    pieces = [piece + events * (MIB // len(events)) for piece in noise]
    path = tmp_path / "attack.pickle.gz"
    path.write_bytes(gzip.compress(b"\x80\x04" + WORDS + EVENTS + b"".join(pieces) + b"eu."))
    assert 60 * path.stat().st_size < 40 * MIB
    growth, said = opened(path, MAX_GROWTH)
    assert "far more memory than those of any snapshot of its size" in said
    assert growth < 64 * MIB + 128 * path.stat().st_size + 10 * MIB


@needs_address_limit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_bomb_of_valid_opcodes_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    # 2 GiB of opcodes that leave nothing, behind a valid start: only the ratio can stop it.
    path = tmp_path / "bomb.gz"
    piece = gzip.compress(b"N0" * MIB)
    path.write_bytes(gzip.compress(b"\x80\x04") + piece * 1024)
    growth, said = opened(path, MAX_GROWTH)
    assert "inflates more than 100 times" in said
    assert growth < MAX_GROWTH


def packed(path: Path, **columns: object) -> Path:
    """A shipped trace with one table replaced by a million equal rows, or two columns of them."""
    table = pa.table(columns)
    name = "strings.parquet" if "text" in columns else "pools.parquet"
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    with zipfile.ZipFile(SHIPPED) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            new.writestr(member, data.getvalue() if member == name else old.read(member))
    return path


@needs_address_limit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_text_in_many_rows_is_bounded_by_the_size_of_the_trace(tmp_path: Path) -> None:
    # Expanded it would be 40 GB.
    path = packed(
        tmp_path / "texts.memscope", text=pa.array([b"x" * 40_000]).dictionary_encode().take(pa.array([0] * MIB))
    )
    assert path.stat().st_size < 100_000
    growth, said = opened(path, MAX_GROWTH)
    assert growth < MAX_GROWTH
    assert "its table strings unpacks to far more than any real one" in said


@needs_address_limit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_equal_rows_by_the_million_are_bounded_by_the_size_of_the_trace(tmp_path: Path) -> None:
    zeros = pa.array([0]).take(pa.array([0] * 20 * MIB))
    path = packed(tmp_path / "rows.memscope", first=zeros, second=zeros)
    assert path.stat().st_size < 300_000
    growth, said = opened(path, MAX_GROWTH)
    assert growth < 10 * MIB
    assert "its table pools unpacks to far more than any real one" in said


def varint(number: int) -> bytes:
    """A signed number as Thrift's compact protocol has it."""
    left, found = 2 * number, b""
    while left > 127:
        found += bytes([left & 127 | 128])
        left >>= 7
    return found + bytes([left])


@needs_address_limit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_dictionary_that_the_footer_calls_small_is_not_unpacked(tmp_path: Path) -> None:
    # 1 GiB of zeros, which the footer says to be one byte: the header of its page says the truth.
    n_bytes = 1 << 30
    table = pa.table({"text": pa.array([bytes(n_bytes)], pa.large_binary())})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False, write_statistics=False)
    del table
    data = buffer.getvalue()
    said = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).total_uncompressed_size
    truth = varint(said)
    at = data.index(truth, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    small = b"\x82" + b"\x80" * (len(truth) - 2) + b"\x00"
    data = data[:at] + small + data[at + len(truth) :]
    assert pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).total_uncompressed_size == 1
    path = tmp_path / "dictionary.memscope"
    with zipfile.ZipFile(SHIPPED) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            new.writestr(member, data if member == "strings.parquet" else old.read(member))
    assert path.stat().st_size < 200_000
    growth, said_of_it = opened(path, MAX_GROWTH)
    assert growth < 10 * MIB
    assert "its table strings unpacks to far more than any real one" in said_of_it
