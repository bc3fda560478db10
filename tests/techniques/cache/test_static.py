from tests.techniques.programs import apply, assert_as_changed, generate


def test_tensors_are_made_once_as_in_a_static_cache():
    assert_as_changed(generate(), "static-kv", generate(static=True))


def test_a_static_cache_saves_nothing():
    found = apply(generate(static=True), "static-kv")
    assert (found.saved_bytes, found.note) == (0, "keys and values are allocated once already")
