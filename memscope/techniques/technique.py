"""What a technique is: a change of a program, with what it costs and how far it is proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from memscope.errors import UsageError
from memscope.techniques.program import Program

Proof = Literal["changed-program", "closed-form", "unproved"]
"""``changed-program``: compared with programs that were truly changed so (``benchmarks/whatif.py``); ``closed-form``:
counted by formula; ``unproved``: neither."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a technique takes for what it saves; None where it does not take that.

    Attributes
    ----------
    recomputed_frac
        Work of the forward pass that is done again, as a share of a whole step of which it is a third.
    moved_bytes_per_step
        Bytes that go between the device and its host, or other devices, in each step.
    precision
        What is kept in fewer bits, in words.
    n_passes
        Passes in place of one.
    words
        Anything else, in words.
    """

    recomputed_frac: float | None = None
    moved_bytes_per_step: int | None = None
    precision: str | None = None
    n_passes: int | None = None
    words: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a program.

    Attributes
    ----------
    program
        The changed one.
    how
        What to change in the code, a line.
    conf
        Allocator settings to run it under; None for the recorded ones.
    note
        Why nothing changes, where the technique is in force already, or cannot save anything.
    assumes
        What was assumed, a sentence each.
    """

    program: Program
    cost: Cost = field(default_factory=Cost)
    how: str = ""
    conf: str | None = None
    note: str | None = None
    assumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Technique:
    """One technique of the registry.

    Attributes
    ----------
    name
        Its name, ``optimizer:8bit``.
    usage
        How it is asked for, ``checkpoint:every=N``.
    summary
        One line for lists.
    proof
        How far its results are proved.
    defaults
        The arguments that ``--all`` tries; empty texts for a technique without any.
    apply
        Changes a program; it gets what stands after the name.
    is_last
        Whether it is applied after all others, whatever the order in which they were asked for: what repeats a pass
        repeats what the others made of it.
    """

    name: str
    usage: str
    summary: str
    proof: Proof
    apply: Callable[[Program, str], Change]
    defaults: tuple[str, ...] = ("",)
    is_last: bool = False


class DoesNotApplyError(UsageError):
    """A technique cannot be applied to a program: the text says what would make it work."""


MOST_NUMBER = 1 << 20
"""The largest number that a technique takes: of ranks, parts, layers or tokens."""


def whole_number(technique: str, text: str, key: str, least: int = 1) -> int:
    """The whole number that an argument gives, by itself or as ``key=N``.

    Raises
    ------
    UsageError
        If it is none, below ``least``, or more than anybody has.
    """
    name, equals, value = text.partition("=")
    given = value if equals else name
    if (equals and name != key) or not given.isascii() or not given.isdigit() or int(given) < least:
        raise UsageError(f"{technique}: {text!r} is not {key}=N with a whole number of at least {least}")
    if int(given) > MOST_NUMBER:
        raise UsageError(f"{technique}: {text!r} is more than {MOST_NUMBER:,}")
    return int(given)


def no_arguments(technique: str, text: str) -> None:
    """Refuse arguments of a technique that has none.

    Raises
    ------
    UsageError
        If there are any.
    """
    if text:
        raise UsageError(f"{technique} takes nothing after its name, not {text!r}")


def need_training(program: Program, technique: str) -> None:
    """Refuse a program that trains nothing.

    Raises
    ------
    DoesNotApplyError
        If no backward pass was seen.
    """
    if not program.passes:
        raise DoesNotApplyError(
            f"{technique} does not apply: no forward pass with a backward pass was seen in this trace; record a "
            "training step"
        )
