"""The techniques that there are, by name."""

from __future__ import annotations

from memscope.errors import UnknownNameError
from memscope.techniques.activations import checkpoint, chunked_logits, micro_batch
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
        set_to_none.TECHNIQUE,
        quantize.TECHNIQUE,
        fewer_bits.TECHNIQUE,
        static.TECHNIQUE,
        empty_cache.TECHNIQUE,
        conf.TECHNIQUE,
    )
}
"""Name → technique, in the order of lists."""


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
