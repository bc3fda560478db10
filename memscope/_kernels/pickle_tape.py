"""A pickle machine that builds no Python object and can call nothing.

Bytes go in, a *tape* comes out: every value is one int64 whose low three bits are a tag and whose other bits are an
integer, or an id into a table. Lists, tuples and dicts are *boxes*: runs of values in one arena, in linked chunks,
because the pickler fills them in batches. Texts are interned by content. Nothing recurses, so nesting costs only
stack rows; and a global, a call or a persistent id has no representation here, so it can only be refused.

The machine is resumable. It stops when it needs more bytes or more room, says so, and goes on where it stood: the
caller streams a file of any size through one small window and grows the arrays between calls. One byte of pickle is
handled once, O(1) each, O(length) for texts and for the items of a batch.

Opcodes and their meaning: the Python library's ``pickletools`` (protocols 0 to 5, read at 3.11).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from memscope._kernels.pickle_scalars import (
    byte_at,
    decimal,
    intern_text,
    line_end,
    long_integer,
    signed,
    unsigned,
)
from memscope._kernels.tape_format import (
    ASKS_CALL,
    ASKS_GLOBAL,
    BAD_NUMBER,
    BAD_PROTOCOL,
    BASE,
    BOX,
    BYTES,
    CONST,
    DICT,
    INT,
    LIST,
    MARK,
    MAX_TEXT_BYTES,
    MEMO_BEYOND,
    MEMO_MISSING,
    N_ARENA,
    N_BOXES,
    N_MEMO,
    N_STACK,
    N_TEXT_BYTES,
    N_TEXTS,
    N_WIDE,
    NEED_INPUT,
    NEED_ROOM,
    NO_MARK,
    OPCODE,
    POS,
    ROOM,
    ROOM_ARENA,
    ROOM_BOXES,
    ROOM_MEMO,
    ROOM_SLOTS,
    ROOM_STACK,
    ROOM_TEXT_BYTES,
    ROOM_TEXTS,
    ROOM_WIDE,
    ROOT,
    STACK_EMPTY,
    STOPPED,
    STR,
    TAG_BITS,
    TAG_MASK,
    TOO_LONG,
    TOO_MANY_OBJECTS,
    TOP_MARK,
    TUPLE,
    UNKNOWN_OPCODE,
    UNSET,
    UNSUPPORTED,
    WIDE,
    WIDE_FLOAT,
    WIDE_FLOAT_TEXT,
    WRONG_TARGET,
    Int64s,
    TapeArrays,
)

FREE_OBJECTS = 1 << 16
BYTES_PER_BOX = 3
BYTES_PER_STACK_ROW = 4
"""A real box, or stored object, takes eight bytes of pickle or more, and the deepest real stack (TorchScript's pickler
puts a whole list on it) fifty bytes a row. A pickle with many more of them than that is built to fill memory."""


@njit(cache=True)
def _add_items(tape: TapeArrays, box: int, stack: Int64s, start: int, stop: int, n_arena: int) -> int:
    """Append stack rows to a box and return the new end of the arena; the caller has made room. O(items)."""
    if start == stop:
        return n_arena
    arena = tape.arena
    last = tape.box_last[box]
    if last == 0 or last + 2 + arena[last + 1] != n_arena:
        if last == 0:
            tape.box_first[box] = n_arena
        else:
            arena[last] = n_arena
        tape.box_last[box] = n_arena
        arena[n_arena], arena[n_arena + 1] = 0, 0
        last = n_arena
        n_arena += 2
    arena[last + 1] += stop - start
    for i in range(start, stop):
        arena[n_arena] = stack[i]
        n_arena += 1
    return n_arena


@njit(cache=True)
def run_tape(buf: npt.NDArray[np.uint8], n_buf: int, tape: TapeArrays) -> int:
    """Go on from ``state[POS]`` of the window ``buf[:n_buf]`` and return a status code.

    After NEED_INPUT and NEED_ROOM everything up to ``state[POS]`` is done and the rest untouched. After STOPPED the
    value is in ``state[ROOT]``. After any other code ``state[POS]`` is the position of the opcode refused.
    """
    state, stack, memo, arena, wide = tape.state, tape.stack, tape.memo, tape.arena, tape.wide
    box_kind = tape.box_kind
    pos, base = int(state[POS]), int(state[BASE])
    ns, mark, n_memo = int(state[N_STACK]), int(state[TOP_MARK]), int(state[N_MEMO])
    n_box, n_arena, n_text = int(state[N_BOXES]), int(state[N_ARENA]), int(state[N_TEXTS])
    n_text_bytes, n_wide = int(state[N_TEXT_BYTES]), int(state[N_WIDE])
    op = 0
    status = NEED_INPUT
    while pos < n_buf:
        room = -1
        if ns >= len(stack):
            room = ROOM_STACK
        elif n_memo >= len(memo):
            room = ROOM_MEMO
        elif n_box >= len(box_kind):
            room = ROOM_BOXES
        elif n_text + 1 >= len(tape.text_start):
            room = ROOM_TEXTS
        elif 2 * n_text >= len(tape.slots):
            room = ROOM_SLOTS
        elif 2 * n_wide + 1 >= len(wide):
            room = ROOM_WIDE
        if room >= 0:
            state[ROOM] = room
            status = NEED_ROOM
            break
        done = base + pos
        if max(n_box, n_memo) > FREE_OBJECTS + done // BYTES_PER_BOX or ns > FREE_OBJECTS + done // BYTES_PER_STACK_ROW:
            status = TOO_MANY_OBJECTS
            break
        op = byte_at(buf, pos)
        p = pos + 1
        left = n_buf - p
        end = p
        if (
            op == 103 or op == 112 or op == 73 or op == 76 or op == 70 or op == 86 or op == 83
        ):  # an argument of one line
            end = line_end(buf, p, n_buf)
            if end < 0:
                status = NEED_INPUT if end == -1 else TOO_LONG
                break

        # The memo: most of a real snapshot is references to it.
        if op == 104 or op == 106 or op == 103:  # BINGET LONG_BINGET GET
            index = -1
            if op == 103:
                v = decimal(buf, p, end, wide, n_wide)
                if v & TAG_MASK != INT:
                    status = BAD_NUMBER
                    break
                index = v >> TAG_BITS
                p = end + 1
            else:
                width = 1 if op == 104 else 4
                if left < width:
                    break
                index = unsigned(buf, p, width)
                p += width
            if index < 0 or index >= len(memo) or memo[index] == UNSET:
                status = MEMO_MISSING
                break
            stack[ns] = memo[index]
            ns += 1
        elif op == 148 or op == 113 or op == 114 or op == 112:  # MEMOIZE BINPUT LONG_BINPUT PUT
            index = n_memo
            if op == 112:
                v = decimal(buf, p, end, wide, n_wide)
                if v & TAG_MASK != INT:
                    status = BAD_NUMBER
                    break
                index = v >> TAG_BITS
                p = end + 1
            elif op != 148:
                width = 1 if op == 113 else 4
                if left < width:
                    break
                index = unsigned(buf, p, width)
                p += width
            if ns - 1 <= mark:
                status = STACK_EMPTY
                break
            if index < 0 or index > done:
                status = MEMO_BEYOND
                break
            if index >= len(memo):
                state[ROOM] = ROOM_MEMO
                status = NEED_ROOM
                break
            if memo[index] == UNSET:
                n_memo += 1
            memo[index] = stack[ns - 1]

        # Numbers.
        elif op == 75 or op == 77 or op == 74:  # BININT1 BININT2 BININT
            width = 1 if op == 75 else 2 if op == 77 else 4
            if left < width:
                break
            v = signed(buf, p, 4) if op == 74 else unsigned(buf, p, width)
            stack[ns] = (v << TAG_BITS) | INT
            ns += 1
            p += width
        elif op == 138 or op == 139:  # LONG1 LONG4
            width = 1 if op == 138 else 4
            if left < width:
                break
            n = unsigned(buf, p, width)
            if n > MAX_TEXT_BYTES:
                status = TOO_LONG
                break
            if left < width + n:
                break
            v = long_integer(buf, p + width, n, wide, n_wide)
            n_wide += 1 if v & TAG_MASK == WIDE else 0
            stack[ns] = v
            ns += 1
            p += width + n
        elif op == 71:  # BINFLOAT, big-endian
            if left < 8:
                break
            v = -1 if byte_at(buf, p) >= 128 else 0
            for i in range(p, p + 8):
                v = (v << 8) | byte_at(buf, i)
            wide[2 * n_wide], wide[2 * n_wide + 1] = v, WIDE_FLOAT
            stack[ns] = (n_wide << TAG_BITS) | WIDE
            n_wide += 1
            ns += 1
            p += 8
        elif op == 73 or op == 76:  # INT LONG, as text
            stop = end - 1 if op == 76 and end > p and buf[end - 1] == 76 else end
            if op == 73 and stop - p == 2 and buf[p] == 48 and (buf[p + 1] == 48 or buf[p + 1] == 49):
                v = ((byte_at(buf, p + 1) - 47) << TAG_BITS) | CONST
            else:
                v = decimal(buf, p, stop, wide, n_wide)
            if v == UNSET:
                status = BAD_NUMBER
                break
            n_wide += 1 if v & TAG_MASK == WIDE else 0
            stack[ns] = v
            ns += 1
            p = end + 1
        elif op == 78 or op == 136 or op == 137:  # NONE NEWTRUE NEWFALSE
            stack[ns] = ((0 if op == 78 else 138 - op) << TAG_BITS) | CONST
            ns += 1

        # Texts and bytes.
        elif (
            op == 140 or op == 88 or op == 141 or op == 67 or op == 66 or op == 142 or op == 150 or op == 85 or op == 84
        ):
            width = 1 if op == 140 or op == 67 or op == 85 else 8 if op == 141 or op == 142 or op == 150 else 4
            if left < width:
                break
            n = unsigned(buf, p, width)
            if n < 0 or n > MAX_TEXT_BYTES:
                status = TOO_LONG
                break
            if left < width + n:
                break
            if n_text_bytes + n > len(tape.text_bytes):
                state[ROOM] = ROOM_TEXT_BYTES
                status = NEED_ROOM
                break
            text = intern_text(buf, p + width, n, tape, n_text)
            if text == n_text:
                n_text += 1
                n_text_bytes += n
            is_text = op == 140 or op == 88 or op == 141 or op == 85 or op == 84
            stack[ns] = (text << TAG_BITS) | (STR if is_text else BYTES)
            ns += 1
            p += width + n
        elif op == 86 or op == 83 or op == 70:  # UNICODE STRING FLOAT, as text
            stop = end
            if op == 83:
                if end - p < 2 or buf[p] != buf[end - 1] or (buf[p] != 39 and buf[p] != 34):
                    status = UNSUPPORTED
                    break
                p += 1
                stop = end - 1
            plain = True
            for i in range(p, stop):
                plain &= buf[i] != 92 and buf[i] < 128
            if not plain:
                status = UNSUPPORTED
                break
            if n_text_bytes + stop - p > len(tape.text_bytes):
                state[ROOM] = ROOM_TEXT_BYTES
                status = NEED_ROOM
                break
            text = intern_text(buf, p, stop - p, tape, n_text)
            if text == n_text:
                n_text += 1
                n_text_bytes += stop - p
            if op == 70:
                wide[2 * n_wide] = text
                wide[2 * n_wide + 1] = WIDE_FLOAT_TEXT
                stack[ns] = (n_wide << TAG_BITS) | WIDE
                n_wide += 1
            else:
                stack[ns] = (text << TAG_BITS) | STR
            ns += 1
            p = end + 1

        # Boxes.
        elif op == 40:  # MARK
            stack[ns] = (mark << TAG_BITS) | MARK
            mark = ns
            ns += 1
        elif op == 117 or op == 101:  # SETITEMS APPENDS
            if mark < 1:
                status = NO_MARK
                break
            target = stack[mark - 1]
            box = target >> TAG_BITS
            n = ns - mark - 1
            if target & TAG_MASK != BOX or box_kind[box] != (DICT if op == 117 else LIST) or (op == 117 and n % 2 == 1):
                status = WRONG_TARGET
                break
            if n_arena + n + 2 > len(arena):
                state[ROOM] = ROOM_ARENA
                status = NEED_ROOM
                break
            n_arena = _add_items(tape, box, stack, mark + 1, ns, n_arena)
            ns = mark
            mark = int(stack[mark]) >> TAG_BITS
        elif op == 115 or op == 97:  # SETITEM APPEND
            n = 2 if op == 115 else 1
            if ns - n - 1 <= mark:
                status = STACK_EMPTY
                break
            target = stack[ns - n - 1]
            box = target >> TAG_BITS
            if target & TAG_MASK != BOX or box_kind[box] != (DICT if op == 115 else LIST):
                status = WRONG_TARGET
                break
            if n_arena + n + 2 > len(arena):
                state[ROOM] = ROOM_ARENA
                status = NEED_ROOM
                break
            n_arena = _add_items(tape, box, stack, ns - n, ns, n_arena)
            ns -= n
        elif op == 125 or op == 93 or op == 41:  # EMPTY_DICT EMPTY_LIST EMPTY_TUPLE
            tape.box_first[n_box] = 0
            tape.box_last[n_box] = 0
            box_kind[n_box] = DICT if op == 125 else LIST if op == 93 else TUPLE
            stack[ns] = (n_box << TAG_BITS) | BOX
            n_box += 1
            ns += 1
        elif op == 133 or op == 134 or op == 135 or op == 116 or op == 108 or op == 100:
            # TUPLE1 TUPLE2 TUPLE3 TUPLE LIST DICT
            from_mark = op < 128
            start = mark + 1 if from_mark else ns - (op - 132)
            if from_mark and mark < 0:
                status = NO_MARK
                break
            if start <= mark:
                status = STACK_EMPTY
                break
            if op == 100 and (ns - start) % 2 == 1:
                status = WRONG_TARGET
                break
            if n_arena + ns - start + 2 > len(arena):
                state[ROOM] = ROOM_ARENA
                status = NEED_ROOM
                break
            tape.box_first[n_box] = 0
            tape.box_last[n_box] = 0
            box_kind[n_box] = LIST if op == 108 else DICT if op == 100 else TUPLE
            n_arena = _add_items(tape, n_box, stack, start, ns, n_arena)
            ns = start
            if from_mark:
                ns = mark
                mark = int(stack[mark]) >> TAG_BITS
            stack[ns] = (n_box << TAG_BITS) | BOX
            ns += 1
            n_box += 1

        # The stack itself.
        elif op == 48:  # POP
            if ns == 0:
                status = STACK_EMPTY
                break
            ns -= 1
            if ns == mark:
                mark = int(stack[ns]) >> TAG_BITS
        elif op == 49:  # POP_MARK
            if mark < 0:
                status = NO_MARK
                break
            ns = mark
            mark = int(stack[ns]) >> TAG_BITS
        elif op == 50:  # DUP
            if ns - 1 <= mark:
                status = STACK_EMPTY
                break
            stack[ns] = stack[ns - 1]
            ns += 1
        elif op == 128:  # PROTO
            if left < 1:
                break
            if buf[p] > 5:
                status = BAD_PROTOCOL
                break
            p += 1
        elif op == 149:  # FRAME: a hint for buffering only
            if left < 8:
                break
            p += 8
        elif op == 46:  # STOP
            if ns - 1 <= mark:
                status = STACK_EMPTY
                break
            state[ROOT] = stack[ns - 1]
            pos = p
            status = STOPPED
            break
        elif op == 99 or op == 147 or op == 105 or (130 <= op <= 132):  # GLOBAL STACK_GLOBAL INST EXT1 EXT2 EXT4
            status = ASKS_GLOBAL
            break
        elif op == 111 or op == 129 or op == 146 or op == 82 or op == 98 or op == 80 or op == 81:
            # OBJ NEWOBJ NEWOBJ_EX REDUCE BUILD PERSID BINPERSID
            status = ASKS_CALL
            break
        elif op == 143 or op == 144 or op == 145 or op == 151 or op == 152:  # sets, out-of-band buffers
            status = UNSUPPORTED
            break
        else:
            status = UNKNOWN_OPCODE
            break
        pos = p
    state[POS], state[N_STACK], state[TOP_MARK], state[N_MEMO] = pos, ns, mark, n_memo
    state[N_BOXES], state[N_ARENA], state[N_TEXTS] = n_box, n_arena, n_text
    state[N_TEXT_BYTES], state[N_WIDE], state[OPCODE] = n_text_bytes, n_wide, op
    return status
