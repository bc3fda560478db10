from tests.techniques.programs import apply, assert_as_changed, train


def test_gradients_die_after_each_step():
    zeroed = train(32, 128, sets_to_none=False)
    assert apply(zeroed, "set-to-none").saved_allocated_bytes > 0
    assert_as_changed(zeroed, "set-to-none", train(32, 128))


def test_the_default_saves_nothing():
    found = apply(train(), "set-to-none")
    assert (found.saved_bytes, found.note) == (0, "gradients are let go of after each step already")
