"""Who owns an allocation: one row for each, decided by the identity of what holds the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import CATEGORY_BY_LABEL, Category

if TYPE_CHECKING:
    import torch

_PRECEDENCE = (
    Category.WEIGHTS,
    Category.GRADIENTS,
    Category.OPTIMIZER_STATE,
    Category.KV_CACHE,
    Category.COMMUNICATION,
    Category.WORKSPACE,
    Category.INPUTS,
    Category.ACTIVATIONS,
    Category.TEMPORARIES,
    Category.UNKNOWN,
)
"""Strongest first: a weight or an input that is also saved for backward stays what it is."""
STRENGTH = {category: rank for rank, category in enumerate(_PRECEDENCE)}
_UNOWNED = len(_PRECEDENCE)


@dataclass(slots=True)
class Allocation:
    """A live allocation of the device.

    Attributes
    ----------
    event
        Position of its alloc event.
    address
        Its address in the simulated device.
    requested_bytes
        What was asked for.
    phase_serial
        The phase that it was made in, 0 outside every phase.
    place
        Path of the module that made it, or the phase's name.
    rank
        Strength of the category it has so far.
    """

    event: int
    address: int
    requested_bytes: int
    phase_serial: int
    place: str
    rank: int = _UNOWNED
    is_tagged: bool = False
    label: str = field(default="")


def named_buffers(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, Category]]:
    """A model's buffers with what each is."""
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield f"{path}.{name}" if path else name, buffer, buffer_category(module, name)


def buffer_category(module: torch.nn.Module, name: str) -> Category:
    """What a buffer is: a weight if checkpoints hold it, else workspace (rotary tables, masks)."""
    return Category.WORKSPACE if name in module._non_persistent_buffers_set else Category.WEIGHTS


def tag_meaning(name: str) -> tuple[Category, str]:
    """What a user's tag says: a category's own name sets the category, any other text is a label.

    >>> tag_meaning("kv_cache")[0].label
    'kv_cache'
    >>> category, label = tag_meaning("kv_cache: layer 3 keys")
    >>> category.label, label
    ('kv_cache', 'layer 3 keys')
    """
    category, colon, label = name.partition(": ")
    if colon and label and category in CATEGORY_BY_LABEL:
        return CATEGORY_BY_LABEL[category], label
    return CATEGORY_BY_LABEL.get(name, Category.UNKNOWN), name


class OwnerBook:
    """Writes owners into the trace; a stronger claim replaces a weaker one, a user's tag replaces all."""

    def __init__(self, builder: TraceBuilder) -> None:
        self._builder = builder
        self._tags: list[str] = []

    def push_tag(self, name: str) -> None:
        """Tag what is allocated from now on."""
        self._tags.append(name)

    def pop_tag(self) -> None:
        """End the innermost tag."""
        self._tags.pop()

    def born(self, allocation: Allocation) -> None:
        """Note a new allocation: it gets the innermost tag, if there is one."""
        if self._tags:
            self.tag(allocation, self._tags[-1])

    def tag(self, allocation: Allocation, name: str) -> None:
        """Give an allocation the user's tag."""
        category, label = tag_meaning(name)
        allocation.is_tagged = True
        self._builder.set_owner(allocation.event, category, label, tagged=True)

    def claim(self, allocation: Allocation, category: Category, label: str) -> None:
        """Say whose an allocation is, unless something stronger has said so, or the same with another name."""
        rank = STRENGTH[category]
        if allocation.is_tagged or rank > allocation.rank or (rank == allocation.rank and label == allocation.label):
            return
        if rank == allocation.rank and category != Category.WEIGHTS:
            return
        allocation.rank = rank
        allocation.label = label
        self._builder.set_owner(allocation.event, category, label)

    def died(self, allocation: Allocation, phase_serial: int) -> None:
        """Note a release: what one phase made and released and nothing ever owned was temporary."""
        if allocation.phase_serial and allocation.phase_serial == phase_serial:
            self.claim(allocation, Category.TEMPORARIES, allocation.place)
