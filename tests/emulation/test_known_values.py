"""Values that are known on the emulated device; the program that reads them is tested where the device is."""

from __future__ import annotations

from types import SimpleNamespace

from memscope.emulation import _known_values as known_values


def test_a_value_is_forgotten_with_its_storage() -> None:
    cell = known_values._Cell()
    whole, part, other = SimpleNamespace(), SimpleNamespace(), SimpleNamespace()
    for tensor, value in ((whole, [1, 2]), (part, [2])):
        setattr(tensor, known_values._VALUE, (value, cell))
    assert (known_values.value_of(whole), known_values.value_of(part)) == ([1, 2], [2])
    assert known_values.value_of(other) is None
    known_values._forget([part, other])
    assert known_values.value_of(whole) is None


def test_what_is_saved_of_a_tensor_has_no_value_beside() -> None:
    tensor = SimpleNamespace(size=3)
    setattr(tensor, known_values._VALUE, ([1, 2, 3], known_values._Cell()))
    assert known_values.without_value(tensor, lambda: dict(vars(tensor))) == {"size": 3}
    assert known_values.value_of(tensor) == [1, 2, 3]
    assert known_values.without_value(SimpleNamespace(), lambda: "saved") == "saved"
