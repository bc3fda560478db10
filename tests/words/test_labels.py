"""Names for people: never markup, and never cut at their end."""

from __future__ import annotations

import pytest

from memscope.trace.trace import Frame
from memscope.words.labels import plain, pool_label, row_label, sentence, short_place, split_site, stream_label


def test_texts_are_escaped_and_cut_in_their_middle() -> None:
    assert plain("a<b>&\n") == "a&lt;b&gt;&amp; "
    assert plain("x" * 50 + "end", 12).endswith("xend")
    assert len(plain("y" * 50, 12)) == 12


@pytest.mark.parametrize(
    "frame", [Frame("f", "/a b/c.py", 3), Frame("lambda x: 1", r"C:\x\y.py", 12), Frame("g", "??", 0)]
)
def test_a_site_is_split_into_function_and_place(frame: Frame) -> None:
    assert split_site(str(frame)) == (frame.name, f"{frame.filename}:{frame.line}")


def test_a_text_that_is_no_site_is_kept_whole() -> None:
    assert split_site("not recorded") == ("not recorded", "")
    assert short_place("/a/b/c.py:3") == "b/c.py:3"


def test_streams_pools_and_rows_have_names_for_people() -> None:
    assert [stream_label(stream) for stream in (None, 0, 0x7F00, -1 << 47)] == [
        "stream not recorded",
        "default stream",
        "stream 0x7f00",
        "stream 0xffff800000000000",
    ]
    assert [pool_label(pool) for pool in (None, (0, 0), (0, 3))] == [
        "pool not recorded",
        "default pool",
        "private pool (0, 3)",
    ]
    assert (row_label("free_pinned"), row_label("weights")) == ("free, pinned", "weights")


def test_a_sentence_begins_with_a_capital_unless_with_a_setting() -> None:
    assert sentence("nothing helps") == "Nothing helps"
    assert sentence("max_split_size_mb:64 saves most") == "max_split_size_mb:64 saves most"
    assert sentence("capacity: nothing was left") == "Capacity: nothing was left"
