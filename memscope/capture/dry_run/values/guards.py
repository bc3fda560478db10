"""Which answer lets a program go on, where it asks an unknown value whether to give up.

``if not (lengths > 0).all(): raise`` says what its author takes for granted of a healthy run. The answer to such a
question is read from the code that asks it: the one after which nothing is raised.
"""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType, FrameType

from memscope.capture.stacks import is_tracer_frame

_MAX_INSTRUCTIONS = 200
"""How far a branch is followed: a message may be put together before it is raised."""
_PASSED_OVER = frozenset({"CACHE", "PRECALL", "TO_BOOL", "NOP", "EXTENDED_ARG", "RESUME", "COPY", "NOT_TAKEN"})
_RAISES = frozenset({"RAISE_VARARGS", "RERAISE"})
_LEAVES = frozenset({"exit", "quit", "_exit", "abort"})
_ASKS_TRUTH = ("CALL", "COMPARE_OP", "POP_JUMP", "JUMP_IF", "UNARY_NOT", "TO_BOOL", "PRECALL")


def answer_that_goes_on() -> bool | None:
    """The truth value after which the asking code does not give up; None where it does so after neither, or both."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_tracer_frame(frame.f_code.co_filename):
        frame = frame.f_back
    return None if frame is None else _answer_at(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=1024)
def _answer_at(code: CodeType, offset: int) -> bool | None:
    """Linear in the code's length, once for each place that asks."""
    if code.co_name.startswith("_check") and code.co_filename.endswith("torch/__init__.py"):
        return True  # torch._check and its kin are given the condition that must hold
    instructions = list(dis.get_instructions(code))
    places = {instruction.offset: place for place, instruction in enumerate(instructions)}
    place = places.get(offset)
    if place is None or not instructions[place].opname.startswith(_ASKS_TRUTH):
        return None
    if instructions[place].opname.startswith(("CALL", "PRECALL", "COMPARE_OP")):
        place += 1
    is_negated = False
    while place < len(instructions):
        name = instructions[place].opname
        if name == "UNARY_NOT":
            is_negated = not is_negated
        elif name not in _PASSED_OVER:
            break
        place += 1
    if place >= len(instructions) or "JUMP" not in name or "IF_" not in name or "NONE" in name:
        return None
    target = places.get(int(instructions[place].argval))
    jumps_if = "IF_TRUE" in name
    jumping, falling = _gives_up(instructions, target), _gives_up(instructions, place + 1)
    if jumping == falling:
        return None
    return (jumps_if != jumping) != is_negated


def _gives_up(instructions: list[dis.Instruction], place: int | None) -> bool:
    """Whether the code from there on raises, or leaves the program, before anything is decided or returned."""
    if place is None:
        return False
    for instruction in instructions[place : place + _MAX_INSTRUCTIONS]:
        name = instruction.opname
        if name in _RAISES or (name.startswith("LOAD_") and instruction.argval in _LEAVES):
            return True
        if "JUMP" in name or name.startswith(("RETURN", "YIELD", "FOR_ITER", "STORE_SUBSCR")):
            return False
    return False
