"""Changes that are undone."""

from __future__ import annotations

import pytest

from memscope.capture.patches import Patches


class Base:
    """Has an attribute that a subclass inherits."""

    value = 1


class Derived(Base):
    """Inherits it."""


def test_what_was_there_is_put_back_and_an_inherited_attribute_uncovered() -> None:
    patches = Patches()
    patches.set(Base, "value", 2)
    patches.set(Derived, "value", 3)
    patches.set(Derived, "value", 4)
    assert (Base.value, Derived.value) == (2, 4)
    patches.undo()
    assert (Base.value, Derived.value) == (1, 1)
    assert "value" not in vars(Derived)


def test_everything_is_undone_in_reverse_even_if_a_part_fails() -> None:
    patches, order = Patches(), []

    def fail() -> None:
        raise ZeroDivisionError

    patches.call_at_end(order.append, "first")
    patches.set(Base, "value", 2)
    patches.call_at_end(fail)
    patches.call_at_end(order.append, "last")
    with pytest.raises(ZeroDivisionError):
        patches.undo()
    assert order == ["last", "first"]
    assert Base.value == 1
