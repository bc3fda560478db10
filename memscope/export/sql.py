"""Questions in SQL over a trace's views. A query sees the views and nothing else: no file, no network, no settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from memscope.analysis import Analysis
from memscope.errors import UnknownNameError, UsageError, first_line, needed_for
from memscope.export.views import VIEWS, view_table

_NO_TABLE = re.compile(r"Table with name (\S+) does not exist")
_WORD = re.compile(r"[A-Za-z_]+")


_QUESTIONS = ("SELECT", "EXPLAIN")


class Answer(NamedTuple):
    """What a query gives: the names of its columns, and its rows."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]


def ask(analysis: Analysis, query: str) -> Answer:
    """Ask a trace in SQL, in DuckDB's dialect. Only the views that the query names are made.

    Raises
    ------
    MissingDependencyError
        If DuckDB is not installed.
    UsageError
        If the query cannot be answered; the message is DuckDB's own first line, or the views that there are.
    ContradictionError
        If the trace contradicts itself.
    """
    with needed_for("memscope sql", "sql"):
        import duckdb

    words = {word.lower() for word in _WORD.findall(query)}
    with duckdb.connect(":memory:", config={"python_enable_replacements": "false"}) as connection:
        for name in VIEWS:
            if name in words:
                connection.register(name, view_table(analysis, name))
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            found = connection.execute(_only_question(connection.extract_statements(query)))
            columns = tuple(column[0] for column in found.description or ())
            return Answer(columns, found.fetchall())
        except duckdb.CatalogException as error:
            unknown = _NO_TABLE.search(first_line(error))
            if unknown is None or unknown[1].lower() in VIEWS:
                raise UsageError(f"the query cannot be answered: {first_line(error)}") from error
            problem = f"the query cannot be answered: there is no view {unknown[1]!r}"
            raise UnknownNameError(problem, unknown[1], VIEWS) from error
        except duckdb.Error as error:
            raise UsageError(f"the query cannot be answered: {first_line(error)}") from error


def _only_question(statements: Sequence[Any]) -> Any:
    """The only statement of a query, which asks something."""
    if len(statements) != 1:
        raise UsageError(f"the query cannot be answered: give one statement, not {len(statements)}")
    (statement,) = statements
    if statement.type.name not in _QUESTIONS:
        raise UsageError(f"the query cannot be answered: {statement.type.name} asks nothing; begin with select or with")
    return statement
