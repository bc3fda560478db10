"""The reader of JSON against the Python library's own."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import InputFileError, UnsafePickleError
from memscope.trace.snapshot._pickle_reader import Tape, fill_from_json
from memscope.trace.snapshot.read import read_snapshot
from tests.oracles import ORACLE, REAL, needs_shared
from tests.properties import examples
from tests.trace.snapshot.snapshots import changed, check_events, check_state, small, trusted_load
from tests.trace.snapshot.test_machine import Pieces, rebuilt, same

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
INSIDE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=7),
    max_leaves=25,
)
VALUES = st.lists(INSIDE, max_size=4) | st.dictionaries(st.text(max_size=5), INSIDE, max_size=4)


class Packed:
    """A source whose file is a thousandth of what it gives."""

    def __init__(self, source: Pieces) -> None:
        self.read = source.read
        self._source = source
        self.is_whole = True

    @property
    def n_file_bytes(self) -> int:
        return self._source.n_file_bytes // 1000


def tape_of(data: bytes, step: int = 1 << 20) -> Tape:
    source = Pieces(data, step)
    source.is_whole = True  # type: ignore[attr-defined]
    return fill_from_json(Path("some.json"), source, ())


def rebuilt_of(data: bytes) -> Any:
    tape = tape_of(data)
    return rebuilt(tape, tape.root)


@given(
    value=VALUES,
    indent=st.sampled_from([None, 0, 2]),
    is_ascii=st.booleans(),
    step=st.sampled_from([1, 2, 7, 1 << 20]),
)
@examples(150)
def test_values_come_out_as_the_library_reads_them(value: Any, indent: int | None, is_ascii: bool, step: int) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    tape = tape_of(data, step)
    assert same(rebuilt(tape, tape.root), json.loads(data.decode("utf-8", "surrogatepass")))


@given(data=st.binary(max_size=40) | st.text('[]{}",:0123456789.eE+- truefalsn\\u', max_size=30).map(str.encode))
@examples(300)
def test_random_bytes_end_in_a_value_or_a_refusal(data: bytes) -> None:
    try:
        expected = json.loads((b"[" + data).decode())
    except ValueError:
        with pytest.raises(InputFileError):
            rebuilt_of(b"[" + data)
    else:
        assert repr(rebuilt_of(b"[" + data)) == repr(expected)


def test_lone_surrogates_and_the_floats_that_python_writes_are_read() -> None:
    tape = tape_of(rb'{"a": "\ud800", "b": "\ud83d\ude00\ud800A", "c": [NaN, Infinity, -Infinity]}')
    found = rebuilt(tape, tape.root)
    assert found["a"] == "\\ud800"
    assert found["b"] == "\N{GRINNING FACE}\\ud800A"
    assert str(found["c"]) == "[nan, inf, -inf]"


def test_equal_small_dicts_are_one() -> None:
    tape = tape_of(b'[{"name": "f", "line": 1}, {"name": "f", "line": 1}, {"name": "f", "line": 2}, [], []]')
    first, second, third, *lists = tape.sequence(tape.root).tolist()
    assert first == second != third
    assert lists[0] != lists[1]  # lists may be told apart by what holds them


REFUSED = {
    b"": "truncated: the JSON breaks off at byte 0",
    b'{"a": 1': "truncated: the JSON breaks off at byte 7",
    b'["a': "truncated",
    b'["\\u12': "truncated",
    b"[1, 2": "truncated",
    b"[1 2]": "something else stands where its syntax breaks (at byte 3)",
    b"{1: 2}": "syntax breaks (at byte 1)",
    b'{"a" 1}': "syntax breaks",
    b'{"a": 1,}': "syntax breaks",
    b"[1,]": "syntax breaks",
    b"[}": "syntax breaks",
    b"[1}": "syntax breaks",
    b"[tru]": "syntax breaks",
    b'["\\x"]': "syntax breaks",
    b'["\\u00zz"]': "syntax breaks",
    b'["a\nb"]': "syntax breaks",
    b"[01]": "is not JSON: a number is not one",
    b"[1.]": "a number is not one",
    b"[-]": "a number is not one",
    b"[1e]": "a number is not one",
    b"[--1]": "a number is not one",
    b"[" * 65: "nested deeper than any snapshot (at byte 64)",
    b'{"a":' * 10**6: "nested deeper than any snapshot",
    b"[] []": "is more than one value of JSON: the first ends at byte 2",
}


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[:12]))
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_is_no_json_is_refused_in_one_line(data: bytes, step: int) -> None:
    with pytest.raises(InputFileError) as caught:
        tape_of(data[: 1 << 12] if step == 1 else data, step)
    assert REFUSED[data] in caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("item", [b"[]", b"0", b'"a"', b'{"a": 1}', b'{"b": [0]}'])
def test_memory_is_in_proportion_to_the_file(item: bytes) -> None:
    data = b"[" + (item + b",") * 1_500_000 + item + b"]"
    assert tape_of(data)._tape.held_bytes <= (64 << 20) + 8 * len(data)


@pytest.mark.parametrize("item", [b"[[]]", b'{"a":[]}'])
def test_lists_in_lists_by_the_million_are_refused_before_they_fill_the_memory(item: bytes) -> None:
    with pytest.raises(UnsafePickleError, match="would need far more memory"):
        tape_of(b"[" + (item + b",") * 1_500_000 + item + b"]")


def test_what_would_fill_the_memory_of_a_small_packed_file_is_refused() -> None:
    source = Pieces(b"[" + b"[]," * 3_000_000 + b"[]]")
    source.is_whole = True  # type: ignore[attr-defined]
    with pytest.raises(UnsafePickleError, match="would need far more memory"):
        fill_from_json(Path("some.json.gz"), Packed(source), ())


def test_a_text_of_more_than_16_mib_is_refused() -> None:
    with pytest.raises(UnsafePickleError, match="more than 16 MiB"):
        tape_of(b'["' + b"a" * (17 << 20) + b'"]')


def as_file(tmp_path: Path, snapshot: Any) -> Path:
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(snapshot))
    return path


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("segments", 0, "total_size"), 1e9, "segments[0]: 'total_size' is not an integer"),
        (("segments", 0, "address"), "0x7f", "segments[0]: 'address' is not an integer"),
        (("segments", 0, "total_size"), 10**30, "is a number beyond 64 bits"),
        (("segments",), 5, "'segments' is not a list"),
        (("device_traces", 0, 0), [], "device_traces[0][0] is not a dict"),
        (("device_traces", 0, 0, "action"), "explode\x1b", "unknown action 'explode\\x1b'"),
        (("allocator_settings", "garbage_collection_threshold"), float("nan"), "not finite"),
    ],
)
def test_wrong_types_are_named_as_in_a_pickle(tmp_path: Path, path: tuple[Any, ...], value: Any, reason: str) -> None:
    with pytest.raises(InputFileError) as caught:
        read_snapshot(as_file(tmp_path, changed(path, value)))
    assert reason in caught.value.reason


def test_a_snapshot_as_json_is_the_same_trace(tmp_path: Path) -> None:
    trace = read_snapshot(as_file(tmp_path, small()))
    check_events(trace, small())
    check_state(trace, small())


@needs_shared
@pytest.mark.parametrize(
    "path", [REAL / "lm-train-torch2.6.pickle.gz", ORACLE / "torch-2.15.0" / "pools_default.pickle.gz"], ids=str
)
def test_real_snapshots_as_json_are_the_same_traces(tmp_path: Path, path: Path) -> None:
    snapshot = trusted_load(path)
    trace = read_snapshot(as_file(tmp_path, snapshot))
    assert trace.metadata.torch_version == read_snapshot(path).metadata.torch_version
    check_events(trace, snapshot)
    check_state(trace, snapshot)
