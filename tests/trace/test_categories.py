"""Categories keep the numbers that are stored in files, and the names that are written everywhere."""

from __future__ import annotations

from memscope.trace.categories import CATEGORY_BY_LABEL, Category, CategorySource


def test_the_stored_numbers_never_change() -> None:
    assert [category.label for category in sorted(Category)] == [
        "weights",
        "gradients",
        "optimizer_state",
        "activations",
        "kv_cache",
        "inputs",
        "temporaries",
        "workspace",
        "communication",
        "unknown",
    ]
    assert [source.label for source in sorted(CategorySource)] == ["identity", "user", "rule", "lifetime", "none"]


def test_a_category_is_found_by_its_name() -> None:
    assert all(CATEGORY_BY_LABEL[category.label] is category for category in Category)
