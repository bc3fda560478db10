"""Everything memscope raises on purpose.

The tree::

    MemscopeError                     exit 1
    ├── UsageError                    exit 1  an option, argument or combination that cannot be used
    │   ├── UnknownNameError          exit 1  a name that is not one of those there are (lists them, the nearest first)
    │   └── FieldError                exit 1  the same, of fields that each surface calls by names of its own
    ├── InputFileError                exit 1  a file that cannot be read as what it should be (names it)
    │   ├── UnsafePickleError         exit 1  a pickle that asks for code, or for more than its size warrants
    │   └── SeveralSnapshotsError     exit 1  a file of several snapshots, none of which was named (says how to)
    ├── MissingDependencyError        exit 1  an optional extra is not installed (gives the install line)
    ├── CaptureError                  exit 1  recording cannot work here (says why and what to do)
    ├── BudgetExceededError           exit 2  a limit the user set was passed
    └── TrustError                    exit 3  the answer would be wrong
        ├── ContradictionError        exit 3  the trace contradicts itself (says what and where)
        └── DivergenceError           exit 3  a replay did not do what was recorded
    InvariantError (AssertionError)   a defect of memscope itself, never the user's
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any


class MemscopeError(Exception):
    """Base of every error that memscope raises on purpose; its text is shown to the user as it is."""

    exit_code = 1


class UsageError(MemscopeError):
    """An option, an argument or a combination of them cannot be used."""


_MOST_LISTED = 16
"""So many names are listed beside the one that was probably meant."""


class UnknownNameError(UsageError):
    """A name is not one of those that there are.

    Parameters
    ----------
    problem
        What is wrong, the name in it; the names that there are follow, and the one that was probably meant.
    name
        What was given.
    known
        The names that there are; very many are listed only where none is like the one given.
    otherwise
        What else could be given.
    """

    def __init__(self, problem: str, name: str, known: Iterable[str], otherwise: str = "") -> None:
        known = tuple(known)
        near = nearest(name, known)
        listed = f"hoose one of {', '.join(known)}{otherwise}"
        meant = f"did you mean {near!r}?"
        if near is None:
            super().__init__(f"{problem}: c{listed}")
        else:
            super().__init__(f"{problem}: {meant}" + (f" C{listed}" if len(known) <= _MOST_LISTED else ""))
        self._parts = problem, name, known, otherwise

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._parts


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant, or that this one begins, in letters of any case; None if none is like it."""
    by_lower = {other.lower(): other for other in known}
    begun = [other for other in by_lower if len(name) > 1 and other.startswith(name.lower())]
    found = get_close_matches(name.lower(), by_lower, n=1) or begun
    return by_lower[found[0]] if found else None


class FieldError(UsageError):
    """A value is missing, or does not suit, that each surface asks for under a name of its own.

    By itself it speaks of the value in plain words; a surface puts its option's or its control's name in their place.

    Parameters
    ----------
    text
        The message, with ``{name}`` in place of each field and of each value.
    fields
        Names of fields, as the data types have them, and plain words for each.
    values
        What else stands in the message; braces in them mean nothing.
    """

    def __init__(self, text: str, fields: Mapping[str, str], **values: Any) -> None:
        super().__init__(text.format(**fields, **values))
        self.fields = dict(fields)
        self._text, self._values = text, values

    def worded(self, names: Mapping[str, str]) -> str:
        """The message with a surface's own names of fields; plain words where it has none."""
        own = {field: names.get(field, words) for field, words in self.fields.items()}
        return self._text.format(**own, **self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        # Replays run in other processes, and what they raise is sent here: by what it was made from.
        return partial(type(self), **self._values), (self._text, self.fields)


class InputFileError(MemscopeError):
    """A file cannot be read as what it should be.

    Parameters
    ----------
    path
        The file; it is named first in the message.
    reason
        One line saying why.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class UnsafePickleError(InputFileError):
    """A pickle asks for a global, or for memory that its size does not warrant; nothing of it was executed."""


MAX_NAMES_LISTED = 8
_MAX_NAME_CHARACTERS = 60


class SeveralSnapshotsError(InputFileError):
    """A file holds several snapshots, and none of them was named.

    Parameters
    ----------
    path
        The file.
    parts
        What each of them is called in the file.
    asked
        The one that was asked for, if that is none of them.

    Attributes
    ----------
    paths
        How each of them is named where a file is asked for.
    """

    def __init__(self, path: str | Path, parts: Iterable[str], asked: str | None = None) -> None:
        self.parts, self.asked = tuple(parts), asked
        self.paths = tuple(Path(f"{path}#{part}") for part in self.parts)
        shown = [ascii(part[:_MAX_NAME_CHARACTERS])[1:-1] for part in self.parts[:MAX_NAMES_LISTED]]
        more = f" and {len(self.parts) - len(shown)} more" if len(self.parts) > len(shown) else ""
        one = "one snapshot" if len(self.parts) == 1 else f"{len(self.parts)} snapshots"
        none = "" if asked is None else f", none of them called {asked[:_MAX_NAME_CHARACTERS]!a}"
        super().__init__(
            path,
            f"holds {one} ({', '.join(shown)}{more}){none}: name one as {path}#{shown[0]}, "
            "or give the file alone to report or dash, which take all of them",
        )


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line; its type where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class MissingDependencyError(MemscopeError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'torch-memscope[{extra}]'")


@contextmanager
def needed_for(purpose: str, extra: str) -> Iterator[None]:
    """Around imports of packages that an extra brings: one that is missing is said with how to install it.

    Raises
    ------
    MissingDependencyError
        If a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "memscope", "memscope_dashboard"):  # a defect of memscope's own
            raise
        raise MissingDependencyError(package.replace("_", "-"), extra, purpose) from error


class CaptureError(MemscopeError):
    """Recording cannot work here."""


class BudgetExceededError(MemscopeError):
    """A limit that the user set was passed."""

    exit_code = 2


class TrustError(MemscopeError):
    """The trace cannot be trusted for what was asked."""

    exit_code = 3


class ContradictionError(TrustError):
    """The trace contradicts itself."""


class DivergenceError(TrustError):
    """A replay did not do what the recording says."""


class InvariantError(AssertionError):
    """An invariant of memscope's own data is broken: a defect in memscope, not in the input."""
