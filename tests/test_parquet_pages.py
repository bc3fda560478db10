"""What a column unpacks to is counted page by page, whatever its footer says."""

from __future__ import annotations

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memscope.parquet_pages import unpacked_bytes

COLUMNS = {
    "numbers": pa.array(range(50_000)),
    "equal": pa.array([7] * 50_000),
    "texts": pa.array([b"x" * (i % 300) for i in range(50_000)]),
}


def written(**options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(COLUMNS), buffer, **options)
    return buffer.getvalue()


def chunks(data: bytes) -> list[tuple[int, int, int]]:
    """Where each column chunk begins, how long it is, and what its footer says that it unpacks to."""
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    found = []
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            column = metadata.row_group(group).column(i)
            begin = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            found.append((begin, column.total_compressed_size, column.total_uncompressed_size))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": False},
        {"compression": "snappy", "data_page_version": "2.0", "data_page_size": 4096},
        {"compression": "gzip", "row_group_size": 1000, "write_statistics": True},
        {"compression": "zstd", "use_dictionary": False, "column_encoding": {"numbers": "DELTA_BINARY_PACKED"}},
    ],
    ids=str,
)
def test_the_pages_add_up_to_what_an_honest_footer_says(options: dict[str, object]) -> None:
    data = written(**options)
    for begin, n_bytes, said in chunks(data):
        # The footer counts the headers of pages too: some 20 bytes, and 300 with a text's least and largest.
        n = unpacked_bytes(data, begin, n_bytes)
        assert 0.9 * said - 700 <= n < said


def test_a_page_is_believed_and_not_the_footer() -> None:
    data = written(compression="zstd")
    begin, n_bytes, said = chunks(data)[2]
    at = data.index(b"\x15", begin + 2)  # the second field of the header: what the page unpacks to
    end = at + 1
    while data[end] > 127:
        end += 1
    huge = b"\xfe" + b"\xff" * (end - at - 2) + b"\x7f"
    assert len(huge) == end - at
    changed = data[: at + 1] + huge + data[end + 1 :]
    assert unpacked_bytes(changed, begin, n_bytes) > said


def test_what_is_no_page_is_said_and_takes_no_time() -> None:
    data = written(compression="zstd")
    begin = chunks(data)[0][0]
    with pytest.raises(ValueError, match="lies outside"):
        unpacked_bytes(data, begin, len(data))
    with pytest.raises(ValueError, match="damaged"):
        unpacked_bytes(b"\x15\x02" + data[begin + 2 :], 0, 100)
    rng = random.Random(1)
    for _ in range(2000):
        noise = rng.randbytes(200)
        try:
            assert unpacked_bytes(noise, 0, 200) >= 0
        except ValueError as error:
            assert "of it" in str(error)  # noqa: PT017
