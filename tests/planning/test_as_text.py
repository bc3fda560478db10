import io

import pytest

from memscope.planning.as_text import print_estimate, solved_words
from memscope.planning.solve import Solved
from memscope.reports.terminal import Terminal
from tests.planning.models import trained


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_card_has_its_verdict_in_any_width(width):
    out = io.StringIO()
    print_estimate(trained(), Terminal(file=out, width=width), Solved("batch", 4, True, trained(), 5))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "does not fit" in text
    assert "weights" in text
    assert "at the peak, on 1GiB" in text
    assert " ".join(text.split()).startswith("largest batch on 1GiB: 4 (the next does not fit; 5 plans dry-run)")


@pytest.mark.parametrize(
    ("solved", "words"),
    [
        (("batch", None, True), "largest batch: not even 1 fits 1GiB"),
        (("gpu", None, True), "smallest card: none fits"),
        (("gpu", "T4-16GB", True), "smallest card: T4-16GB (5 plans dry-run)"),
        (("seq", 256, False), "longest sequence on 1GiB: 256 (not confirmed; 5 plans dry-run)"),
    ],
)
def test_an_answer_is_said_in_a_line(solved, words):
    name, value, confirmed = solved
    assert solved_words(Solved(name, value, confirmed, trained(), 5)) == words
