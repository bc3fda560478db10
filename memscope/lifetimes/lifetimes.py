"""The lifetimes of all devices of a trace."""

from __future__ import annotations

from functools import cached_property

from memscope.errors import UsageError
from memscope.lifetimes.completeness import Completeness, measure_completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.trace import Trace


class Lifetimes:
    """A trace's devices, each followed through its events; the final blocks must tile their segments."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._devices = {device: DeviceLifetimes(trace, device) for device in trace.devices}

    @property
    def devices(self) -> list[DeviceLifetimes]:
        """All devices, by index."""
        return list(self._devices.values())

    def device(self, device: int) -> DeviceLifetimes:
        """One device.

        Raises
        ------
        UsageError
            If the trace has no such device.
        """
        try:
            return self._devices[device]
        except KeyError:
            known = ", ".join(map(str, self._devices)) or "none"
            raise UsageError(f"device {device} is not in this trace (it has {known})") from None

    @cached_property
    def completeness(self) -> Completeness:
        """What the trace cannot say."""
        return measure_completeness(self.trace, self.devices)
