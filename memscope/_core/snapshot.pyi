"""
Pickles of plain data, read without running anything. A value is an int64 that only a tape can take apart; 0 is no
value.
"""

from collections.abc import Sequence
import enum
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Multiplies(Exception):
    pass

class Refused(Exception):
    pass

class Status(enum.Enum):
    """How a step of reading ended."""

    NEED_INPUT = 0

    STOPPED = 1

    ASKS_GLOBAL = 2

    ASKS_CALL = 3

    UNKNOWN_OPCODE = 4

    UNSUPPORTED = 5

    STACK_EMPTY = 6

    NO_MARK = 7

    MEMO_MISSING = 8

    MEMO_BEYOND = 9

    TOO_LONG = 10

    WRONG_TARGET = 11

    BAD_PROTOCOL = 12

    BAD_NUMBER = 13

    TOO_MANY_OBJECTS = 14

    TOO_MUCH_MEMORY = 15

    NOT_JSON = 16

    TOO_DEEP = 17

    NOT_SLICED = 18

class Kind(enum.Enum):
    """What a value is."""

    NOTHING = 0

    BOOLEAN = 1

    INTEGER = 2

    BEYOND_INTEGER = 3

    FLOAT = 4

    FLOAT_TEXT = 5

    TEXT = 6

    BYTES = 7

    LIST = 8

    TUPLE = 9

    DICT = 10

class MemoUse:
    """Which stored objects of a pickle are ever asked for."""

class MemoScan:
    """A pass over a pickle that makes no value."""

    def __init__(self) -> None: ...

    def feed(self, data: bytes, n_file_bytes: int) -> Status:
        """Go on with the next bytes."""

    def take_use(self) -> MemoUse:
        """What was found, once, after STOPPED."""

class EventCounts:
    """What is told of all events of a device."""

    @property
    def n_events(self) -> int: ...

    @property
    def n_segment_events(self) -> int: ...

    @property
    def n_allocs(self) -> int: ...

    @property
    def n_requests(self) -> int: ...

    @property
    def n_completions(self) -> int: ...

    @property
    def n_times_back(self) -> int: ...

    @property
    def n_without_time(self) -> int: ...

    @property
    def first_time(self) -> int: ...

    @property
    def last_time(self) -> int: ...

class EventSieve:
    """
    What is kept of a snapshot's events: those of segments, or a part with its neighbours, and what
    is in use.
    """

    def __init__(self, words: Sequence[int], actions: Sequence[int]) -> None:
        """
        Ids of known texts: of device_traces, action, addr, size, time_us, pool_id and frames; and of the actions, in
        the order of their numbers.
        """

    def want(self, device: int, begin: int, end: int, segments: tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], block_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], segment_event_keys: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], roundup_divisions: Sequence[int], max_split_bytes: int, is_expandable: bool) -> None:
        """
        Before reading: keep the events [begin, end) of a device and one on either side. ``segments``: start, end
        and key, int64 (m,), before the first event; ``address`` and ``block_bytes``, int64 (n,), of what is in use
        then and ever after; ``segment_event_keys`` int64: the key of each event of a segment.
        """

    @property
    def n_devices(self) -> int:
        """Devices that have events."""

    @property
    def outer_list(self) -> int:
        """The list of the devices' lists, 0 if none was found."""

    def counts(self, device: int) -> EventCounts:
        """What is told of all of its events."""

    def kept(self, device: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Places of the events kept in the device's list: int64 (n,)."""

    def in_use(self, device: int) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]]:
        """
        What is in use after the part, or after all events, in no order: address, requested and block bytes, int64,
        whether its free is pending, bool, and the value of its frames, int64 (n,) each.
        """

    def is_seen(self, tape: Tape, key: int) -> bool:
        """Whether an event, kept or not, has a key."""

class Machine:
    """A pickle machine that builds no Python object and can call nothing."""

    def __init__(self, known_texts: Sequence[str], secret: int) -> None:
        """
        Known texts get the ids 0, 1, … in their order. ``secret`` keeps the hashes unforeseeable.
        """

    def feed(self, data: bytes, n_file_bytes: int) -> Status:
        """
        Go on with the next bytes; ``n_file_bytes`` have been read of the file so far, where it may be packed.
        """

    def keep_part(self, use: MemoUse, sieve: EventSieve) -> None:
        """
        Before the first bytes: keep what the sieve keeps of the events. Refused with NOT_SLICED where that needs
        more than a pass over them.
        """

    def take_tape(self) -> Tape:
        """The values read, once, after STOPPED."""

    @property
    def offset(self) -> int:
        """Where the pickle breaks off, or the refused opcode stands."""

    @property
    def call_name(self) -> str:
        """Name of the refused opcode, if it is one that runs code."""

    @property
    def asks_for_extension(self) -> bool:
        """Whether the refused opcode is EXT1, EXT2 or EXT4."""

    @property
    def global_names(self) -> list[bytes]:
        """Module and name of the global asked for, if they can be told."""

class JsonReader:
    """A reader of JSON that fills a tape as the pickle machine does."""

    def __init__(self, known_texts: Sequence[str], secret: int) -> None:
        """
        Known texts get the ids 0, 1, … in their order. ``secret`` keeps the hashes unforeseeable.
        """

    def feed(self, data: bytes, n_file_bytes: int) -> Status:
        """
        Go on with the next bytes; ``n_file_bytes`` have been read of the file so far, where it may be packed.
        """

    def take_tape(self) -> Tape:
        """The values read, once, after STOPPED."""

    @property
    def offset(self) -> int:
        """
        Where the text breaks off, the refused token stands, or the value ends.
        """

class Tape:
    """The values of a pickle."""

    @property
    def root(self) -> int:
        """The pickle's value."""

    @property
    def n_texts(self) -> int:
        """Distinct texts, known ones included."""

    @property
    def held_bytes(self) -> int:
        """Memory that the values take."""

    def kind(self, value: int) -> Kind:
        """What a value is."""

    def scalar(self, value: int) -> object:
        """A number or boolean as Python's own; None for everything else."""

    def text(self, text_id: int) -> bytes:
        """A text's bytes."""

    def text_id(self, value: int) -> int:
        """
        The id of a text, of bytes, or of a float written in decimals; −1 for others.
        """

    def check_dicts(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keys: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C')], int]:
        """
        For each key, a text id, whether any of the dicts has it: bool (keys,). And the first row that is no dict,
        −1 if all are. Raises Multiplies if dicts stand in many rows each, Refused if the rows are too many.
        """

    def column(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Values that dicts have for a key, 0 where one has not: int64 (rows,)."""

    def has(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: int) -> Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C')]:
        """
        Which dicts have the key, with something other than None: bool (rows,).
        """

    def integers(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: int, missing: int, wrap: bool) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int, bool]:
        """
        Integers of a key: int64 (rows,), the first row with something else, −1, and whether that is an integer
        beyond 64 bits. ``wrap`` takes unsigned 64 bits as the int64 of the same bits.
        """

    def text_ids(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: int) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int]:
        """
        Text ids of a key, −1 where there is none: int64 (rows,); and the first row with something else, −1.
        """

    def booleans(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: int) -> tuple[Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C')], int]:
        """
        Booleans of a key, False where there is none: bool (rows,); and the first row with something else, −1.
        """

    def pairs(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: int) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C')], int]:
        """
        Pairs of integers of a key: int64 (rows,) twice, which rows have one, bool (rows,), and the first row with
        something else, −1.
        """

    def lengths(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int]:
        """
        Lengths of lists or tuples: int64 (rows,); and the first row that is neither, −1. O(chunks).
        """

    def items(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], limit: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """
        Items of lists or tuples, one after the other, at most ``limit`` of each: int64 (items,).
        """

    def keys_and_values(self, dict: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Keys and values of a dict in turns: int64 (2 × items,)."""

    def sequences_in(self, columns: Sequence[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]]) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int]:
        """
        The lists and tuples in columns of values, each once: int64 (lists,); and the first row with something else
        than those and None, −1.
        """

    def boxes_in(self, lists: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int]:
        """
        The lists, tuples and dicts in lists, each once: int64 (boxes,); and the first list with other items, −1.
        """

    def number_stacks(self, lists: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], frames: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], frame_ids: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Stacks:
        """
        Number lists of frames by content and first appearance; ``frame_ids`` are int32 ids of the frames.
        """

class Stacks:
    """Distinct lists of frames."""

    def ids(self, values: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')]:
        """
        The stack of each value of a column, −1 where there is none: int32 (rows,).
        """

    def offsets(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Of each stack in the frames: int64 (stacks + 1,)."""

    def frame_ids(self) -> Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')]:
        """Frames of all stacks: int32 (frames,)."""

def dense_ids(columns: Sequence[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], secret: int) -> tuple[Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]]:
    """
    Number distinct rows of columns by first appearance: the id of each row, int32 (rows,), and the row where
    each id first appears, int64 (ids,).
    """
