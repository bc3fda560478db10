"""The categories of memory: fixed names, fixed order, stored numbers."""

from __future__ import annotations

from enum import IntEnum


class Category(IntEnum):
    """What an allocation is for. ``UNKNOWN`` is always shown; nothing is guessed into another class.

    ``WEIGHTS`` are parameters, and buffers that checkpoints hold; ``WORKSPACE`` is scratch memory of libraries, and
    tables that modules make anew and no checkpoint holds (rotary frequencies, masks).

    The numbers are stored in ``.memscope`` files; the order is the stacking order, weights at the bottom.
    """

    WEIGHTS = 0
    GRADIENTS = 1
    OPTIMIZER_STATE = 2
    ACTIVATIONS = 3
    KV_CACHE = 4
    INPUTS = 5
    TEMPORARIES = 6
    WORKSPACE = 7
    COMMUNICATION = 8
    UNKNOWN = 9

    @property
    def label(self) -> str:
        """The name as it is written everywhere: ``optimizer_state``."""
        return self.name.lower()


class CategorySource(IntEnum):
    """What decided an allocation's category, strongest first."""

    IDENTITY = 0
    """The object that owns the memory was seen at capture."""
    USER = 1
    """The user's own tag or rule."""
    RULE = 2
    """A stack rule of memscope."""
    LIFETIME = 3
    """When it was born and when it died."""
    INFERRED = 4
    """Sizes, counts and lives of what predates the recording, beside what was recorded; with a confidence."""
    NONE = 5
    """Nothing did: the category is unknown."""

    @property
    def label(self) -> str:
        """The name as it is written everywhere."""
        return self.name.lower()


CATEGORY_BY_LABEL = {category.label: category for category in Category}


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
