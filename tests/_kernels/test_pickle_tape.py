"""The pickle machine against the Python library's own unpickler."""

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope._kernels import tape_format as vm
from memscope.errors import InputFileError, UnsafePickleError
from memscope.trace.snapshot._pickle_reader import Tape
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

    def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def tape_of(data: bytes, step: int = 1 << 20, known: tuple[str, ...] = ()) -> Tape:
    tape = Tape(Path("some.pickle"), known)
    tape.fill(Pieces(data, step))
    return tape


def rebuilt(tape: Tape, value: int) -> Any:
    """The Python object that a value of a tape stands for: slow, recursive, obvious."""
    if tape.is_box(value, vm.DICT):
        items = tape.items(*_one(tape, value))
        return {rebuilt(tape, int(k)): rebuilt(tape, int(v)) for k, v in zip(items[::2], items[1::2], strict=True)}
    if tape.is_sequence(value):
        items = [rebuilt(tape, int(item)) for item in tape.sequence(value)]
        return items if tape.is_box(value, vm.LIST) else tuple(items)
    if value & vm.TAG_MASK == vm.BYTES:
        return tape._text_bytes(value >> vm.TAG_BITS)
    return tape.scalar(value)


def _one(tape: Tape, value: int) -> tuple[np.ndarray, np.ndarray]:
    n, chunk = 0, int(tape._arrays["box_first"][value >> vm.TAG_BITS])
    while chunk:
        n += int(tape._arrays["arena"][chunk + 1])
        chunk = int(tape._arrays["arena"][chunk])
    return np.array([value]), np.array([n])


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


def test_every_array_grows_beyond_its_first_size() -> None:
    value = [f"text {i}" for i in range(40_000)], [float(i) for i in range(40_000)], [(i,) for i in range(40_000)]
    tape = tape_of(pickle.dumps(value, 4))
    assert same(rebuilt(tape, tape.root), value)
    assert tape.n_texts == 40_000


def test_equal_texts_share_one_id_and_known_texts_come_first() -> None:
    tape = tape_of(pickle.dumps(["".join(["si", "ze"]), "size", "other", "addr"], 4), known=("addr", "size"))
    assert [int(value) >> vm.TAG_BITS for value in tape.sequence(tape.root)] == [1, 1, 2, 0]


def test_a_list_that_holds_itself_is_read_without_end() -> None:
    value: list[Any] = [1]
    value.append(value)
    tape = tape_of(pickle.dumps(value, 4))
    assert int(tape.sequence(tape.root)[1]) == tape.root


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ((1 << 60) - 1, None),
        (1 << 60, vm.WIDE_INT64),
        (-(1 << 60), None),
        (-(1 << 60) - 1, vm.WIDE_INT64),
        ((1 << 63) - 1, vm.WIDE_INT64),
        (-(1 << 63), vm.WIDE_INT64),
        (1 << 63, vm.WIDE_UINT64),
        ((1 << 64) - 1, vm.WIDE_UINT64),
        (1 << 64, vm.WIDE_BEYOND),
        (-(1 << 63) - 1, vm.WIDE_BEYOND),
        (1 << 900, vm.WIDE_BEYOND),
    ],
)
def test_integers_beyond_64_bits_are_flagged_and_all_others_exact(number: int, kind: int | None) -> None:
    tape = tape_of(pickle.dumps([number], 4))
    value = tape.sequence(tape.root)
    if kind is None:
        assert int(value[0]) & vm.TAG_MASK == vm.INT
    else:
        assert int(tape._arrays["wide"][2 * (int(value[0]) >> vm.TAG_BITS) + 1]) == kind
    assert tape.scalar(int(value[0])) == (None if kind == vm.WIDE_BEYOND else number)
    numbers, good = tape.integers(value, wrap=True)
    assert bool(good[0]) == (kind != vm.WIDE_BEYOND)
    if good[0]:
        assert int(numbers[0]) % (1 << 64) == number % (1 << 64)


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
    assert tape.root & vm.TAG_MASK not in (vm.UNSET, vm.MARK)
