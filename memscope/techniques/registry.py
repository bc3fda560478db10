"""The techniques that there are, by name."""

from __future__ import annotations

from collections.abc import Iterable

from memscope.errors import UnknownNameError, UsageError
from memscope.techniques.activations import checkpoint, chunked_logits, micro_batch, saved_on_host
from memscope.techniques.allocator import conf, empty_cache
from memscope.techniques.cache import fewer_bits, static
from memscope.techniques.optimizers import (
    adafactor,
    eight_bit,
    foreach_off,
    fused,
    offloaded,
    paged,
    set_to_none,
    sgd,
)
from memscope.techniques.sharding import fsdp, zero
from memscope.techniques.technique import Technique
from memscope.techniques.weights import quantize

TECHNIQUES: dict[str, Technique] = {
    technique.name: technique
    for technique in (
        checkpoint.TECHNIQUE,
        micro_batch.TECHNIQUE,
        chunked_logits.TECHNIQUE,
        eight_bit.TECHNIQUE,
        adafactor.TECHNIQUE,
        sgd.TECHNIQUE,
        fused.TECHNIQUE,
        foreach_off.TECHNIQUE,
        paged.TECHNIQUE,
        offloaded.TECHNIQUE,
        saved_on_host.TECHNIQUE,
        set_to_none.TECHNIQUE,
        quantize.TECHNIQUE,
        fewer_bits.TECHNIQUE,
        static.TECHNIQUE,
        zero.TECHNIQUE,
        fsdp.TECHNIQUE,
        empty_cache.TECHNIQUE,
        conf.TECHNIQUE,
    )
}
"""Name → technique, in the order of lists."""
_OPTIMIZER = "optimizer:"
"""How techniques are called that say which optimizer a program has, or which implementation of it."""
_SHARDING = (zero.TECHNIQUE.name, fsdp.TECHNIQUE.name)


def technique_named(text: str) -> tuple[Technique, str]:
    """The technique that a text asks for, and what stands after its name.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    name = text.strip()
    while name:
        if name in TECHNIQUES:
            return TECHNIQUES[name], text.strip()[len(name) + 1 :]
        name = name.rpartition(":")[0]
    raise UnknownNameError(f"there is no technique {text!r}", text, (each.usage for each in TECHNIQUES.values()))


def place_of(technique: Technique) -> tuple[bool, int]:
    """Where a technique stands among others that are applied with it: what several make does not depend on who asks."""
    return technique.is_last, list(TECHNIQUES).index(technique.name)


def clash_of(asked: Iterable[str]) -> tuple[str, str] | None:
    """The first two of some techniques that cannot be of one program; None where all can.

    A program has one optimizer, of one implementation, is sharded in one way, and a technique is applied once.
    """
    seen: dict[str, str] = {}
    for text in asked:
        name = technique_named(text)[0].name
        kind = _OPTIMIZER if name.startswith(_OPTIMIZER) else _SHARDING[0] if name in _SHARDING else name
        if kind in seen:
            return seen[kind], text
        seen[kind] = text
    return None


def refuse_clashes(asked: Iterable[str]) -> None:
    """Refuse techniques that cannot be of one program.

    Raises
    ------
    UsageError
        If there are any, or one is not known.
    """
    clash = clash_of(asked)
    if clash is None:
        return
    one, other = clash
    if one == other:
        raise UsageError(f"{one} is asked for twice")
    if technique_named(one)[0].name in _SHARDING:
        raise UsageError(f"{one} and {other}: a program is sharded in one way: ask for one of them")
    if technique_named(one)[0] is technique_named(other)[0]:
        raise UsageError(f"{one} and {other}: the same technique twice: ask for one of them")
    raise UsageError(f"{one} and {other}: a program has one optimizer: ask for one of them")
