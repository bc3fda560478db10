"""The pickle machine against the Python library's own unpickler."""

import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope._core.snapshot import Kind
from memscope.errors import InputFileError, UnsafePickleError
from memscope.trace.snapshot._pickle_reader import NO_VALUE, Tape, fill_tape
from tests.properties import examples

INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=8)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=25,
)


class Pieces:
    """A source that hands out bytes in pieces of a size."""

    def __init__(self, data: bytes, step: int = 1 << 20) -> None:
        self._pieces = [data[i : i + step] for i in range(0, len(data), step)]
        self.n_file_bytes = 0

    def read(self) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        self.n_file_bytes += len(piece)
        return piece


def tape_of(data: bytes, step: int = 1 << 20, known: tuple[str, ...] = ()) -> Tape:
    return fill_tape(Path("some.pickle"), Pieces(data, step), known)


def rebuilt(tape: Tape, value: int) -> Any:
    """The Python object that a value of a tape stands for: slow, recursive, obvious."""
    kind = tape._tape.kind(value)
    if kind == Kind.DICT:
        items = tape._tape.keys_and_values(value).tolist()
        return {rebuilt(tape, k): rebuilt(tape, v) for k, v in zip(items[::2], items[1::2], strict=True)}
    if kind in (Kind.LIST, Kind.TUPLE):
        items = [rebuilt(tape, int(item)) for item in tape.sequence(value)]
        return items if kind == Kind.LIST else tuple(items)
    if kind == Kind.BYTES:
        return tape._tape.text(tape._tape.text_id(value))
    return tape.scalar(value)


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types throughout: 1, 1.0 and True differ."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@given(value=PLAIN)
@examples(60)
def test_plain_data_come_out_as_the_unpickler_reads_them(protocol: int, value: Any) -> None:
    if protocol == 2:
        value = _without_bytes(value)  # protocol 2 writes bytes as a call of a codec
    tape = tape_of(pickle.dumps(value, protocol))
    assert same(rebuilt(tape, tape.root), value)


def _without_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_bytes(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_bytes(item) for item in value)
    return value.hex() if isinstance(value, bytes) else value


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_textual_protocols_are_read_too(protocol: int) -> None:
    value = {"a": [1, -2, 3 << 50, True, False, None], "b": (0.0, 0.6, -1.5e-7, 3e20), "c": ("x", "y y"), "d": [[], {}]}
    tape = tape_of(pickle.dumps(value, protocol))
    assert same(rebuilt(tape, tape.root), value)


def test_a_float_that_is_none_is_refused_when_it_is_asked_for() -> None:
    tape = tape_of(b"F1e\n.")
    with pytest.raises(InputFileError, match="'1e' in it is not a number"):
        tape.scalar(tape.root)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
def test_bytes_may_come_in_pieces_of_any_size(step: int) -> None:
    value = {"list": list(range(3000)), "text": "x" * 700, "big": [2**62, -(2**63), 1.5], "pairs": [(1, 2)] * 3}
    tape = tape_of(pickle.dumps(value, 4), step)
    assert same(rebuilt(tape, tape.root), value)


def test_lists_filled_in_turns_keep_their_order() -> None:
    # Two lists of more than one batch of 1,000 each, the second inside the first: chunks of both alternate.
    value = [[i] * (i % 3) for i in range(2500)]
    tape = tape_of(pickle.dumps(value, 4))
    assert same(rebuilt(tape, tape.root), value)


def test_lists_go_on_where_they_were_shared() -> None:
    # Both lists are filled with the same items at once, then each with one more of its own, in turns.
    data = b"](K\x01K\x02e" + b"](K\x01K\x02e" + b"\x86" + b"q\x000"
    lists = b"](K\x01K\x02eq\x000" + b"](K\x01K\x02eq\x010"
    turns = b"".join(b"h%cK%ca0" % (i % 2, 3 + i) for i in range(6))
    tape = tape_of(lists + turns + b"h\x00h\x01\x86.")
    assert rebuilt(tape, tape.root) == ([1, 2, 3, 5, 7], [1, 2, 4, 6, 8])
    assert rebuilt(tape_of(data + b"h\x00."), tape_of(data + b"h\x00.").root) == ([1, 2], [1, 2])


@pytest.mark.parametrize("batch", [1, 3, 40, 70, 1000])
def test_dicts_of_any_number_of_keys_and_in_any_batches_keep_them_all(batch: int) -> None:
    pairs = [(i * i % 977, i) for i in range(5000)]
    parts = [
        b"(" + b"".join(b"M%bM%b" % (k.to_bytes(2, "little"), v.to_bytes(2, "little")) for k, v in part) + b"u"
        for part in (pairs[i : i + batch] for i in range(0, len(pairs), batch))
    ]
    tape = tape_of(b"}" + b"".join(parts) + b".")
    assert rebuilt(tape, tape.root) == dict(pairs)


def test_more_shapes_of_dicts_than_are_kept() -> None:
    value = [{f"key {i}": i, "same": i, f"other {i % 7}": -i} for i in range(6000)] + [{"same": 1}] * 3
    tape = tape_of(pickle.dumps(value, 4), known=("same",))
    assert rebuilt(tape, tape.root) == value
    dicts = tape.sequence(tape.root)
    assert tape.integers(dicts, 0, missing=-1, wrap=False)[0].tolist() == [item["same"] for item in value]


def test_every_part_grows_beyond_its_first_size() -> None:
    value = [f"text {i}" for i in range(40_000)], [float(i) for i in range(40_000)], [(i,) for i in range(40_000)]
    tape = tape_of(pickle.dumps(value, 4))
    assert same(rebuilt(tape, tape.root), value)
    assert tape.n_texts == 40_000


def test_equal_texts_share_one_id_and_known_texts_come_first() -> None:
    tape = tape_of(pickle.dumps(["".join(["si", "ze"]), "size", "other", "addr"], 4), known=("addr", "size"))
    assert [tape._tape.text_id(int(value)) for value in tape.sequence(tape.root)] == [1, 1, 2, 0]


def test_equal_tuples_are_one_value_and_equal_lists_are_not() -> None:
    tape = tape_of(pickle.dumps([(1, 2), (1, int("2")), [1, 2], [1, 2]], 4))
    values = tape.sequence(tape.root).tolist()
    assert values[0] == values[1]
    assert values[2] != values[3]


def test_a_list_that_holds_itself_is_read_without_end() -> None:
    value: list[Any] = [1]
    value.append(value)
    tape = tape_of(pickle.dumps(value, 4))
    assert int(tape.sequence(tape.root)[1]) == tape.root


@pytest.mark.parametrize(
    "number",
    [
        (1 << 60) - 1,
        1 << 60,
        -(1 << 60),
        -(1 << 60) - 1,
        (1 << 63) - 1,
        -(1 << 63),
        1 << 63,
        (1 << 64) - 1,
        1 << 64,
        -(1 << 63) - 1,
        1 << 900,
    ],
)
def test_integers_beyond_64_bits_are_flagged_and_all_others_exact(number: int) -> None:
    tape = tape_of(pickle.dumps([{"n": number}], 4), known=("n",))
    dicts = tape.sequence(tape.root)
    value = int(tape.column(dicts, 0)[0])
    is_int64, is_64_bits = -(1 << 63) <= number < 1 << 63, -(1 << 63) <= number < 1 << 64
    assert tape._tape.kind(value) == (Kind.INTEGER if is_64_bits else Kind.BEYOND_INTEGER)
    assert tape.scalar(value) == (number if is_64_bits else None)
    for wrap, is_good in ((False, is_int64), (True, is_64_bits)):
        numbers, bad, is_beyond = tape.integers(dicts, 0, missing=7, wrap=wrap)
        assert (bad, is_beyond) == ((-1, False) if is_good else (0, True))
        assert int(numbers[0]) % (1 << 64) == (number % (1 << 64) if is_good else 7)


REFUSED_WITH_NAME = {
    b"cos\nsystem\n.": "asks for os.system at byte 0",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93.": "asks for os.system at byte 14",
    b"(S'a'\nios\nsystem\n.": "asks for os.system at byte 6",
    b"\x82\x01.": "asks for a registered extension at byte 0",
    b"\x83\x01\x02.": "asks for a registered extension",
    b"KK\x93.": "asks for a global",
    b"]R.": "asks to run code (opcode REDUCE) at byte 1",
    b"]b.": "opcode BUILD",
    b"](o.": "opcode OBJ",
    b"]\x81.": "opcode NEWOBJ",
    b"]\x92.": "opcode NEWOBJ_EX",
    b"Pname\n.": "opcode PERSID",
    b"]Q.": "opcode BINPERSID",
}


@pytest.mark.parametrize("data", REFUSED_WITH_NAME, ids=lambda data: data.hex())
def test_whatever_could_run_code_is_refused_by_name_and_place(data: bytes) -> None:
    with pytest.raises(UnsafePickleError, match=r"nothing of it was executed") as caught:
        tape_of(data)
    assert REFUSED_WITH_NAME[data] in str(caught.value)


def test_a_refused_name_is_printed_without_control_characters() -> None:
    with pytest.raises(UnsafePickleError) as caught:
        tape_of(b"cbad\x1b[31m\xff\nna\x07me\n.")
    assert str(caught.value).isprintable()


REFUSED = {
    b"\x80\x06.": "protocol newer than 5",
    b"h\x07.": "never stored",
    b"j\xff\xff\xff\x7f.": "never stored",
    b"Nr\xff\xff\xff\x7f.": "beyond its own size",
    b"Np999999999999\n.": "beyond its own size",
    b"a.": "empty stack",
    b"(a.": "empty stack",
    b"N(a.": "empty stack",
    b"](N(a.": "empty stack",
    b".": "empty stack",
    b"(.": "empty stack",
    b"0.": "empty stack",
    b"(2.": "empty stack",
    b"\x85.": "empty stack",
    b"(\x85.": "empty stack",
    b"\x94.": "empty stack",
    b"e.": "never opened",
    b"u.": "never opened",
    b"t.": "never opened",
    b"1.": "never opened",
    b"N(Ne.": "no list or dict",
    b"](NNu.": "no list or dict",
    b"}(Nu.": "no list or dict",
    b"}(Nd.": "no list or dict",
    b"NNa.": "no list or dict",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.": "more than 16 MiB",
    b"\x8b\xff\xff\xff\xff.": "more than 16 MiB",
    b"X\xff\xff\xff\xff.": "more than 16 MiB",
    b"I12x\n.": "a number is not one",
    b"I\n.": "a number is not one",
    b"I1e5\n.": "a number is not one",
    b"L-L\n.": "a number is not one",
    b"\x8f.": "no snapshot uses",
    b"\x97.": "no snapshot uses",
    b"V\\u0041\n.": "no snapshot uses",
    b"S'a\\x41'\n.": "no snapshot uses",
    b"\x00.": "no opcode",
    b"\xff.": "no opcode",
    b"": "truncated",
    b"\x80": "truncated",
    b"\x80\x04": "truncated",
    b"\x8c\x05abc": "truncated",
    b"J\x01\x02": "truncated",
    b"I12": "truncated",
    b"G\x00": "truncated",
    b"]" * 300_000 + b".": "far beyond any snapshot",
    b"(" * 300_000 + b".": "far beyond any snapshot",
    b"N" + b"\x94" * 300_000 + b".": "far beyond any snapshot",
}


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: data[:12].hex() or "empty")
def test_what_is_no_pickle_of_plain_data_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(InputFileError) as caught:
        tape_of(data)
    assert REFUSED[data] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_without_end_is_not_waited_for() -> None:
    with pytest.raises(UnsafePickleError, match="16 MiB"):
        tape_of(b"I" + b"1" * (2 << 20))


def test_the_stack_can_be_popped_past_a_mark() -> None:
    # MARK 1 POP POP leaves nothing; then 5. And POP_MARK drops a run at once.
    for data, value in ((b"(K\x0100K\x05.", 5), (b"K\x05(K\x01K\x021.", 5), (b"K\x052\x86.", (5, 5))):
        tape = tape_of(data)
        assert rebuilt(tape, tape.root) == value


def rebuilt_without_end(tape: Tape, value: int) -> None:
    """Look at everything, also in what holds itself."""
    seen, ahead = set(), [value]
    while ahead:
        value = ahead.pop()
        kind = tape._tape.kind(value)
        if value in seen or kind not in (Kind.LIST, Kind.TUPLE, Kind.DICT):
            continue
        seen.add(value)
        ahead += (tape._tape.keys_and_values(value) if kind == Kind.DICT else tape.sequence(value)).tolist()


def refusal(data: bytes) -> str:
    """Why the machine refuses these bytes, empty if it does not."""
    try:
        tape_of(data)
    except InputFileError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_opcode_is_known_to_the_machine(opcode: pickletools.OpcodeInfo) -> None:
    # Zeros enough behind it that no argument is cut off, newlines that end the textual ones.
    assert "no opcode has this code (at byte 0)" not in refusal(opcode.code.encode("latin-1") + b"0\n" * 8 + bytes(16))


@given(st.binary(max_size=60))
@examples(300)
def test_random_bytes_end_in_a_value_or_a_refusal(data: bytes) -> None:
    if refusal(data):
        return
    tape = tape_of(data)
    assert tape.root != NO_VALUE
    rebuilt_without_end(tape, tape.root)
