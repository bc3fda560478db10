import pytest

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, train


@pytest.mark.parametrize("conf", ["expandable_segments:True", "max_split_size_mb:21", "roundup_power2_divisions:4"])
def test_settings_are_those_of_a_program_run_under_them(conf):
    assert_as_changed(train(), f"conf:{conf}", train(conf=conf), within=0)


def test_recorded_settings_save_nothing():
    found = apply(train(conf="expandable_segments:True"), "conf:expandable_segments:True")
    assert (found.saved_bytes, found.note) == (0, "these are the recorded settings")


@pytest.mark.parametrize(("text", "reason"), [("conf", "give settings"), ("conf:split:3", "is not one of PyTorch's")])
def test_no_settings_are_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        apply(train(), text)
