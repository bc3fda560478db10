"""Categories keep the numbers that are stored in files, and the names that are written everywhere."""

from __future__ import annotations

from memscope.trace.categories import CATEGORY_BY_LABEL, Category, CategorySource, tag_meaning


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
    expected = ["identity", "user", "rule", "lifetime", "inferred", "none"]
    assert [source.label for source in sorted(CategorySource)] == expected


def test_a_category_is_found_by_its_name() -> None:
    assert all(CATEGORY_BY_LABEL[category.label] is category for category in Category)


def test_a_tag_that_names_a_category_sets_it_and_other_text_is_a_label() -> None:
    assert tag_meaning("weights") == (Category.WEIGHTS, "weights")
    assert tag_meaning("kv_cache: layer 3 keys") == (Category.KV_CACHE, "layer 3 keys")
    assert tag_meaning("kv_cache: ") == (Category.UNKNOWN, "kv_cache: ")
    assert tag_meaning("no category: text") == (Category.UNKNOWN, "no category: text")
