"""Errors: what they say, and what each surface makes of it."""

from __future__ import annotations

import pickle

from memscope.errors import FieldError, UsageError


def test_a_field_is_said_in_plain_words_or_in_a_surfaces_own() -> None:
    error = FieldError("the speed of {gpu} is not known: give {peaks}", {"peaks": "its peaks"}, gpu="{X}")
    assert isinstance(error, UsageError)
    assert str(error) == error.worded({}) == "the speed of {X} is not known: give its peaks"
    assert error.worded({"peaks": "--tflops", "gpu": "no"}) == "the speed of {X} is not known: give --tflops"
    assert list(error.fields) == ["peaks"]


def test_an_error_of_another_process_arrives_whole() -> None:
    sent = FieldError("{manager}: give {size}", {"size": "a size"}, manager="paged")
    arrived = pickle.loads(pickle.dumps(sent))
    assert str(arrived) == "paged: give a size"
    assert arrived.worded({"size": "--size"}) == "paged: give --size"
