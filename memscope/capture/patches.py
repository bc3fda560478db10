"""Changes to a module's or class's attributes that are undone, all of them, whatever happens."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

_MISSING = object()


class Patches:
    """A set of attribute changes; :meth:`undo` puts back exactly what was there, in reverse order."""

    def __init__(self) -> None:
        self._undo = ExitStack()

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute, remembering what the owner itself held (an inherited one is uncovered again)."""
        held = vars(owner).get(name, _MISSING)
        setattr(owner, name, value)
        if held is _MISSING:
            self._undo.callback(delattr, owner, name)
        else:
            self._undo.callback(setattr, owner, name, held)

    def call_at_end(self, undo: Any, *args: Any) -> None:
        """Have something else undone as well."""
        self._undo.callback(undo, *args)

    def undo(self) -> None:
        """Undo everything."""
        self._undo.close()
