"""The description of the emulated machine."""

from __future__ import annotations

import pytest

from memscope.emulation.device import EmulatedMachine, parse_capability
from memscope.errors import UsageError


def test_a_machine_becomes_variables() -> None:
    machine = EmulatedMachine("NVIDIA L4", 22_700 << 20, 512 << 20, (8, 9), 58, n_devices=2, event_latency=30)
    assert machine.variables() == {
        "FAKE_CUDA_DEVICES": "2",
        "FAKE_CUDA_NAME": "NVIDIA L4 (emulated)",
        "FAKE_CUDA_TOTAL_BYTES": "23802675200",
        "FAKE_CUDA_OVERHEAD_BYTES": "536870912",
        "FAKE_CUDA_CC": "89",
        "FAKE_CUDA_SMS": "58",
        "FAKE_CUDA_EVENTS": "lag:30",
    }


@pytest.mark.parametrize(("text", "capability"), [("8.0", (8, 0)), (" 12.0 ", (12, 0)), ("8.9", (8, 9))])
def test_capabilities_are_read(text: str, capability: tuple[int, int]) -> None:
    assert parse_capability(text) == capability


@pytest.mark.parametrize("text", ["", "8", "8.", ".9", "8.10", "four.two", "-8.0", "99.0"])
def test_what_is_no_capability_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no compute capability"):
        parse_capability(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_devices": 0}, "0 emulated devices: choose from 1 to 16"),
        ({"n_devices": 17}, "17 emulated devices: choose from 1 to 16"),
        ({"event_latency": -1}, "an event latency of -1: it cannot be negative"),
        ({"overhead_bytes": 2000}, "an overhead of 2,000 bytes on a device of 1,000: nothing is left"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EmulatedMachine(
            **{"device_name": "x", "total_bytes": 1000, "overhead_bytes": 0, "capability": (8, 0)}  # type: ignore[arg-type]
            | {"n_multiprocessors": 1}
            | options
        )
