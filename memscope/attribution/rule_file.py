r"""The user's own rules: a TOML file of ``[[rule]]`` tables, tried before memscope's own.

::

    [[rule]]
    name = "retrieval index"
    category = "workspace"
    reason = "the index is loaded once and searched in place"
    frames = [{ file = "search/index\\.py$", function = "^load" }]
    phases = ["outside"]     # optional: outside load forward backward optimizer generate
    lives = ["kept"]         # optional: short saved kept setup lasting fed once growing
    sizes_bytes = [1048576]  # optional
    tags = ["^epoch=0"]      # optional

``file``, ``function`` and ``tags`` are regular expressions, found anywhere; every frame pattern must be found in the
stack, and one of the tags in the user's tag on the memory.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from memscope.attribution.phases.lives import Life
from memscope.attribution.phases.phases import PHASE_BY_LABEL
from memscope.attribution.rule import Rule
from memscope.attribution.rule_table import ALL_RULES
from memscope.errors import InputFileError, UnknownNameError
from memscope.files import require_file
from memscope.trace.categories import CATEGORY_BY_LABEL
from memscope.trace.frames import FramePattern

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LIFE_BY_LABEL = {life.value: life for life in Life}
_KEYS = frozenset({"name", "category", "reason", "frames", "phases", "lives", "sizes_bytes", "tags"})


class _RuleError(ValueError):
    """A rule that cannot be used; the text says why."""


def rules_with(path: str | Path | None) -> tuple[Rule, ...]:
    """The rules in force: the user's, if there is a file of them, then memscope's own.

    Raises
    ------
    InputFileError
        If the file is not one of rules.
    """
    return ALL_RULES if path is None else (*read_rules(path), *ALL_RULES)


def read_rules(path: str | Path) -> tuple[Rule, ...]:
    """Read a file of rules.

    Raises
    ------
    InputFileError
        If it cannot be read or is not TOML; or naming the first rule that cannot be used, and why.
    """
    require_file(path)
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputFileError(path, (error.strerror or str(error)).lower()) from None
    except UnicodeDecodeError:
        raise InputFileError(path, "not a file of rules: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputFileError(path, f"not a file of rules: {_one_line(str(error))}") from None
    unknown = sorted(set(content) - {"rule"})
    records = content.get("rule")
    if unknown or not isinstance(records, list) or not records:
        reason = f"{unknown[0]!r} is not known" if unknown else "it has no [[rule]]"
        raise InputFileError(path, f"not a file of rules: {reason}")
    rules: list[Rule] = []
    for number, record in enumerate(records, 1):
        rules.append(_rule_or_error(path, number, record, {rule.name for rule in (*rules, *ALL_RULES)}))
    return tuple(rules)


def _rule_or_error(path: str | Path, number: int, record: Any, taken: set[str]) -> Rule:
    try:
        return _rule(record, taken)
    except _RuleError as error:
        raise InputFileError(path, f"{_title(record, number)}: {error}") from None


def _title(record: Any, number: int) -> str:
    name = record.get("name") if isinstance(record, dict) else None
    return f"rule {number} ({_one_line(name)!r})" if isinstance(name, str) else f"rule {number}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _rule(record: Any, taken: set[str]) -> Rule:
    if not isinstance(record, dict):
        raise _RuleError("not a table")
    unknown = sorted(set(record) - _KEYS)
    if unknown:
        raise _RuleError(str(UnknownNameError(f"a rule has no {unknown[0]!r}", unknown[0], sorted(_KEYS))))
    name, reason = _text(record, "name"), _text(record, "reason")
    if name in taken:
        raise _RuleError("there is a rule of that name already")
    category = _one_of(_text(record, "category"), "category", CATEGORY_BY_LABEL)
    rule = Rule(
        name,
        category,
        reason,
        tuple(_pattern(frame) for frame in _list(record, "frames")),
        tuple(_one_of(phase, "phase", PHASE_BY_LABEL) for phase in _list(record, "phases")),
        tuple(_one_of(life, "life", _LIFE_BY_LABEL) for life in _list(record, "lives")),
        tuple(_size(size) for size in _list(record, "sizes_bytes")),
        tuple(_expression(tag, "tag", "of tags") for tag in _list(record, "tags")),
        is_users=True,
    )
    if not (rule.frames or rule.phases or rule.lives or rule.sizes_bytes or rule.tags):
        raise _RuleError("it would fit everything: give frames, phases, lives, sizes_bytes or tags")
    return rule


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _RuleError(f"{key} is missing" if value is None else f"{key} must be a text")
    return value


def _list(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key, [])
    if not isinstance(value, list):
        raise _RuleError(f"{key} must be a list")
    return value


def _one_of(value: Any, what: str, known: dict[str, Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise _RuleError(str(UnknownNameError(f"{what} {value!r} is not known", str(value), known)))
    return known[value]


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise _RuleError(f"sizes_bytes must be numbers of bytes above 0, not {value!r}")
    return value


def _pattern(record: Any) -> FramePattern:
    if not isinstance(record, dict) or not record or set(record) - {"file", "function"}:
        raise _RuleError("a frame has file, function, or both")
    for key, expression in record.items():
        _expression(expression, key, "of a frame")
    return FramePattern(**record)


def _expression(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise _RuleError(f"{what} {where} must be a text")
    try:
        re.compile(value)
    except re.error as error:
        raise _RuleError(f"{what} {value!r} is not a regular expression: {error}") from None
    return value
