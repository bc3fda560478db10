"""Names of strangers are shown on one line each, and not too long."""

from __future__ import annotations

import pytest

from memscope.names import MAX_SEARCHED, MAX_SHOWN, escaped, searchable, shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layers.3.mlp", "layers.3.mlp"),
        ("größe 桁", "größe 桁"),
        ("a\x1b[31m\nb\u202e\ud800", "a\\x1b[31m\\nb\\u202e\\ud800"),
        ("", ""),
    ],
)
def test_a_name_is_shown_on_one_line(text: str, words: str) -> None:
    assert shown(text) == words


def test_a_long_name_loses_its_middle_not_its_end() -> None:
    words = shown("begin" + "x" * 5000 + "end")
    assert len(words) == MAX_SHOWN
    assert words.startswith("begin")
    assert words.endswith("end")
    assert len(shown("\n" * 5000)) <= MAX_SHOWN


def test_a_megabyte_is_shown_as_its_ends_are() -> None:
    long = "\x1b" * (1 << 20)
    words = shown(long)
    assert len(words) == MAX_SHOWN
    assert words == shown(long[:5000])
    assert shown(words) == words
    assert shown("x" * 50, 10) == "xxx…xxxxxx"


def test_what_is_only_escaped_keeps_its_length() -> None:
    assert escaped("a:1," * 1000) == "a:1," * 1000
    assert escaped("a\nb\udc80") == "a\\nb\\udc80"


def test_patterns_are_looked_for_at_the_ends_of_what_nobody_wrote() -> None:
    text = "begin" + "x" * 100_000 + "/cache.py"
    found = searchable(text)
    assert len(found) == MAX_SEARCHED + 1
    assert found.startswith("begin")
    assert found.endswith("/cache.py")
    assert searchable("x" * MAX_SEARCHED) == "x" * MAX_SEARCHED
