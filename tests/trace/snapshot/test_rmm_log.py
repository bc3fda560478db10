"""Logs of RMM: what they say, what they do not, and their variations."""

import gzip
from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.errors import InputFileError
from memscope.trace.container import read_container, write_container
from memscope.trace.open import open_trace
from memscope.trace.schema import Action

NAMES = "Thread,Time,Action,Pointer,Size,Stream"
ROWS = """\
2342727,15:47:02.841961,allocate,0x10012400000,1000,0
2342727,15:47:02.841977,allocate,0x10012500000,2097153,0x7f8a38001020
2342728,15:47:02.841990,free,0x10012400000,1000,0
2342728,15:47:02.842990,allocate failure,0x0,1099511627776,0
2342727,15:47:02.851961,allocate,0x10012400000,700,0
"""
DAY = 24 * 3600 * 10**9


def written(tmp_path: Path, text: str | bytes, name: str = "rmm.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    return path


def test_requests_frees_and_failures_become_events(tmp_path: Path) -> None:
    trace = open_trace(written(tmp_path, f"{NAMES}\n{ROWS}"))
    assert [Action(a) for a in trace.action] == [
        Action.ALLOC,
        Action.ALLOC,
        Action.FREE_REQUESTED,
        Action.FREE_COMPLETED,
        Action.OOM,
        Action.ALLOC,
    ]
    assert trace.address.tolist() == [0x10012400000, 0x10012500000, 0x10012400000, 0x10012400000, -1, 0x10012400000]
    assert trace.size_bytes.tolist() == [1000, 2097153, 1000, 1000, 1 << 40, 700]
    assert trace.stream_handles[trace.stream_id].tolist() == [0, 0x7F8A38001020, 0, 0, 0, 0]
    assert trace.time_ns[0] == ((15 * 60 + 47) * 60 + 2) * 10**9 + 841_961_000
    assert trace.metadata.source == "rmm-log"
    assert not trace.metadata.has_segment_events


def test_bytes_are_those_asked_for_and_what_was_not_recorded_is_not_measured(tmp_path: Path) -> None:
    analysis = load(written(tmp_path, f"{NAMES}\n{ROWS}"))
    analysis.require_consistent()
    usage = analysis.device(0).usage
    assert usage.allocated_bytes.tolist() == [0, 1000, 2098153, 2097153, 2097153, 2097153, 2097853]
    assert usage.requested_bytes.tolist() == [0, 1000, 2098153, 2098153, 2097153, 2097153, 2097853]
    assert usage.reserved_bytes is None
    assert analysis.device(0).allocations.is_exact.all()
    assert analysis.completeness.preexisting_bytes == 0


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        f"\ufeff{NAMES}\r\n" + ROWS.replace("\n", "\r\n"),
        f"{NAMES}\n" + ROWS.replace(".8", ":8"),
        f"{NAMES}\n" + ROWS.replace("free", "deallocate").replace("0x0,", "(nil),"),
        f"{NAMES.lower()}\n{ROWS}",
        "Stream,Size,Pointer,Action,Time,Thread,Comment\n"
        + "".join(",".join(reversed(row.split(","))) + ",x\n" for row in ROWS.splitlines()),
        f"{NAMES}\n{ROWS}234272",
        f"{NAMES}\n{ROWS}2342727,15:47:02.9,free,0x10012400000,700,0x",
        f"{NAMES}\n{ROWS}".rstrip(),
        f"{NAMES}\n{ROWS}\n\n",
    ],
    ids=[
        "no-names",
        "windows",
        "colon",
        "deallocate",
        "lower-case",
        "other-order",
        "cut-off",
        "cut-off-within-the-stream",
        "no-last-line-end",
        "empty-lines",
    ],
)
def test_variations_are_the_same_trace(tmp_path: Path, text: str) -> None:
    plain = open_trace(written(tmp_path, f"{NAMES}\n{ROWS}"))
    trace = open_trace(written(tmp_path, text, "other.csv"))
    for column in ("action", "address", "size_bytes", "stream_id", "time_ns"):
        assert getattr(trace, column).tolist() == getattr(plain, column).tolist()
    assert any("breaks off" in note for note in trace.metadata.notes) == text.endswith(("234272", "0x"))


def test_it_may_be_packed_and_becomes_a_container(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(f"{NAMES}\n{ROWS}".encode()), "log.dev3.csv.gz")
    trace = open_trace(path)
    assert trace.devices == (3,)
    again = read_container(write_container(trace, tmp_path / "a.memscope"))
    assert again.metadata == trace.metadata
    assert again.address.tolist() == trace.address.tolist()


def test_times_go_on_after_midnight_or_count_from_the_epoch(tmp_path: Path) -> None:
    rows = "1,23:59:59.999999,allocate,0x100,1,0\n1,00:00:00.000001,free,0x100,1,0\n1,0:00:01,allocate,0x100,1,0\n"
    times = open_trace(written(tmp_path, f"{NAMES}\n{rows}")).time_ns
    assert times.tolist() == [DAY - 1000, DAY + 1000, DAY + 1000, DAY + 10**9]
    rows = "1,1634567890.123456,allocate,0x100,1,0\n1,1634567891,free,0x100,1,0\n"
    times = open_trace(written(tmp_path, f"{NAMES}\n{rows}")).time_ns
    assert times.tolist() == [1634567890123456000, 1634567891000000000, 1634567891000000000]


def test_addresses_of_the_upper_half_are_kept_and_empty_requests_are_left_out(tmp_path: Path) -> None:
    rows = "1,1.5,allocate,0xffff800000000000,512,0xffff800000000001\n1,1.6,allocate,0x0,0,0\n1,1.7,free,0x0,0,0\n"
    trace = open_trace(written(tmp_path, f"{NAMES}\n{rows}"))
    assert trace.address_text(int(trace.address[0])) == "0xffff800000000000"
    assert trace.n_events == 1
    assert any("0 bytes" in note and note.endswith(": 2.") for note in trace.metadata.notes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{NAMES},Size\n1,2,3,4,5,6,7\n", "is not a log of RMM: it has no column 'Size', or several"),
        (f"{NAMES}\n1,2,explode\x1b,0x1,1,0\n", "line 2 of its log of RMM: Action 'explode\\x1b' is none of RMM's"),
        (f"{NAMES}\n1,1.0,allocate,0x1,1,0\n1,noon,free,0x1,1,0\n", "line 3 of its log of RMM: Time 'noon'"),
        (f"{NAMES}\n1,1.0,allocate,zebra,1,0\n", "line 2 of its log of RMM: Pointer 'zebra' is no address"),
        (f"{NAMES}\n1,1.0,allocate,0x1,-1,0\n", "line 2 of its log of RMM: Size '-1' is no size"),
        (f"{NAMES}\n1,1.0,allocate,0x1,1e9,0\n", "Size '1e9' is no size"),
        (f"{NAMES}\n1,1.0,allocate,0x1,9999999999999999999,0\n", "is no size of any device"),
        (f"{NAMES}\n1,1.0,allocate,0x{'f' * 17},1,0\n", "is no address"),
        (f"{NAMES}\n1,1.0,allocate,0x1,1,{'9' * 500}\n", f"Stream '{'9' * 40}' is no stream"),
        (f"{NAMES}\n1,99:00:00.0,allocate,0x1,1,0\n", "Time '99:00:00.0' is no time that RMM writes"),
        (f"{NAMES}\n1,9999999999.9,allocate,0x1,1,0\n", "Time '9999999999.9' is no time that RMM writes"),
        (f"{NAMES}\n1,1.0,all\udcff,0x1,1,0\n", "line 2 of its log of RMM: Action 'all?' is none of RMM's"),
        (f"{NAMES}\n\udcff,1\n1,1.0,allocate,0x1,1,0\n", "line 2 of its log of RMM: 2 columns instead of 6"),
        (f"{NAMES}\n1,1.0,allocate\n1,1.0,allocate,0x1,1,0\n", "line 2 of its log of RMM: 3 columns instead of 6"),
        ("1,1.0,allocate,0x1,1,0\n1,1.0,free,?,1,0\n", "line 2 of its log of RMM: Pointer '?' is no address"),
        (f"{NAMES}\n1,1.0,allocate,0x1,1,0\n1,1\n1,1\n1,2", "damaged: not a log of RMM"),
    ],
)
def test_what_rmm_does_not_write_is_named_by_its_line(
    tmp_path: Path, text: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputFileError) as caught:
        open_trace(written(tmp_path, text))
    assert reason in caught.value.reason
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")


def test_a_log_of_nothing_is_an_empty_trace(tmp_path: Path) -> None:
    assert open_trace(written(tmp_path, f"{NAMES}\n")).n_events == 0
    assert open_trace(written(tmp_path, NAMES)).n_events == 0
