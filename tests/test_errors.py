"""Errors: what they say, and what each surface makes of it."""

from __future__ import annotations

import pickle

import pytest

from memscope.errors import FieldError, MissingDependencyError, UnknownNameError, UsageError, nearest, needed_for


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


def test_a_name_that_there_is_not_is_said_with_the_one_that_was_meant() -> None:
    error = UnknownNameError("there is no 'Arenas'", "Arenas", ("paged", "arena"), ", or none")
    assert str(error) == "there is no 'Arenas': did you mean 'arena'? Choose one of paged, arena, or none"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert (
        str(UnknownNameError("there is no 'x'", "x", ("paged", "arena")))
        == "there is no 'x': choose one of paged, arena"
    )


def test_very_many_names_are_listed_only_where_none_is_like_it() -> None:
    many = [f"option-{letter}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert str(UnknownNameError("no 'option-bbb'", "option-bbb", many)) == "no 'option-bbb': did you mean 'option-bb'?"
    assert str(UnknownNameError("no '1'", "1", many)).endswith("option-yy, option-zz")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("stiching", "stitching"),
        ("a100-80g", "A100-80GB"),
        ("", None),
        ("zzz", None),
        ("A10", "A100-80GB"),
        ("p", None),
    ],
)
def test_the_nearest_name_is_like_it_or_none(name: str, meant: str | None) -> None:
    assert nearest(name, ("stitching", "paged", "A100-80GB")) == meant


def test_a_missing_package_is_said_with_how_to_install_it() -> None:
    said = r"^the map needs some-atlas, which is not installed: pip install 'torch-memscope\[maps\]'$"
    with pytest.raises(MissingDependencyError, match=said), needed_for("the map", "maps"):
        import some_atlas.pages  # noqa: F401


def test_a_module_of_memscope_that_is_missing_is_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError), needed_for("the map", "maps"):
        import memscope.atlas  # noqa: F401
