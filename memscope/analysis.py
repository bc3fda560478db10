"""A trace as its devices, with what is thought of each; every result is made once and on demand.

The command line, the reports and the dashboard all ask here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from memscope.attribution.rule import Rule
from memscope.attribution.rule_file import rules_with
from memscope.attribution.rule_table import ALL_RULES
from memscope.device.device import Device, Moment
from memscope.device.recording import RecordedTrace
from memscope.errors import UsageError
from memscope.findings.find import find_findings
from memscope.findings.finding import Finding, Findings, growing_until
from memscope.kv_cache.lens import KvLens
from memscope.oom.judge import judge_oom
from memscope.oom.verdict import Counterfactual, OomVerdict
from memscope.trace.open import open_trace
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from memscope.units import format_bytes


def load(path: str | Path, *, rules: str | Path | Sequence[Rule] | None = None) -> Analysis:
    """Open a ``.memscope`` file or a torch snapshot.

    Parameters
    ----------
    rules
        A TOML file of rules to try before memscope's own (:mod:`memscope.attribution.rule_file`), or the whole table.

    Raises
    ------
    InputFileError
        If either cannot be read.
    """
    in_force = rules_with(rules) if rules is None or isinstance(rules, str | Path) else rules
    return Analysis(open_trace(path), path, rules=in_force)


def with_growth(verdict: OomVerdict, grows: Sequence[Finding], *, ended: bool) -> OomVerdict:
    """A verdict that names what kept more and more memory until then, first of all that it says."""
    said = tuple(
        f"what grew until then: {one.title[:1].lower()}{one.title[1:]}; {format_bytes(one.held_bytes)} by then"
        for one in grows
    )
    # A replay with the fix has an answer only where it serves all requests: the one that ended the run among them.
    served = [one for one in grows if ended and one.fix and one.returned_bytes is not None]
    found = tuple(
        Counterfactual(
            "kept",
            f"{one.fix} ({', '.join(one.sites)})",
            "modelled",
            "let go of where each step or pass ends",
            one.returned_bytes,
        )
        for one in served
    )
    remedies = replace(verdict.remedies, found=(*found, *verdict.remedies.found))
    return replace(verdict, evidence=(*said, *verdict.evidence), remedies=remedies)


class Opinions:
    """What is thought of one device, each thing once."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._verdicts: dict[tuple[int | None, bool], OomVerdict] = {}

    @cached_property
    def kv_lens(self) -> KvLens:
        """Its key/value cache over its events; false where none is known of."""
        return KvLens(self.device)

    @cached_property
    def findings(self) -> Findings:
        """What deserves attention on it, worst first."""
        return find_findings(self.device, self.kv_lens)

    def oom(self, event: int | None = None, *, searches: bool = True) -> OomVerdict:
        """Why memory ran out, and what would have let the request through.

        Parameters
        ----------
        event
            An ``oom`` event; the first if not given.
        searches
            Whether to search changes that would have helped, and what grew until then: some dozens of replays.

        Raises
        ------
        UsageError
            If the event is not one of the device's out-of-memory errors.
        """
        asked = event, searches
        if asked not in self._verdicts:
            verdict = judge_oom(self.device, event, searches=searches)
            if searches and verdict.event is not None:  # findings may take replays, too
                ended = verdict.event == self.device.lifetimes.fatal_oom_event
                verdict = with_growth(verdict, growing_until(self.findings, verdict.event), ended=ended)
            self._verdicts[asked] = verdict
        return self._verdicts[asked]


class Analysis(RecordedTrace):
    """A trace and its analyses.

    Parameters
    ----------
    trace
        The trace; it is not changed.
    path
        The file that it was opened from, for messages.
    rules
        What tells the categories of allocations without identity, in order.
    """

    def __init__(self, trace: Trace, path: str | Path | None = None, *, rules: Sequence[Rule] = ALL_RULES) -> None:
        super().__init__(trace, path)
        self.rules = tuple(rules)

    def __repr__(self) -> str:
        return f"<Analysis of {self.trace!r}>"

    @property
    def devices(self) -> tuple[Device, ...]:
        """Devices of the trace, by index."""
        return tuple(opinions.device for opinions in self._opinions.values())

    @cached_property
    def _opinions(self) -> dict[int, Opinions]:
        devices = (Device(self, lifetimes, self.rules) for lifetimes in self.lifetimes)
        return {device.index: Opinions(device) for device in devices}

    def opinions(self, index: int | None = None) -> Opinions:
        """What is thought of one device: the one named, else the first that ran out of memory, else the first.

        Raises
        ------
        UsageError
            If the trace has no such device, or none at all.
        """
        if index is None:
            if not self.trace.devices:
                raise UsageError("this trace is empty: it has no segments and no events")
            failed = self.trace.device[self.trace.action == Action.OOM]
            index = int(failed.min()) if len(failed) else self.trace.devices[0]
        try:
            return self._opinions[index]
        except KeyError:
            known = ", ".join(map(str, self.trace.devices)) or "none"
            raise UsageError(f"device {index} is not in this trace (it has {known})") from None

    def device(self, index: int | None = None) -> Device:
        """One device: the one named, else the first that ran out of memory, else the first.

        Raises
        ------
        UsageError
            If the trace has no such device, or none at all.
        """
        return self.opinions(index).device

    def devices_asked(self, index: int | None = None, event: int | None = None) -> tuple[Device, ...]:
        """The devices that a question is about: the one named, that of an event, the first that ran out, else each.

        Devices of which nothing was recorded are left out where others have something.

        Raises
        ------
        UsageError
            If the trace has no such device, or none at all.
        """
        if index is None and event is None and not (self.trace.action == Action.OOM).any():
            recorded = tuple(device for device in self.devices if device.n_events)
            if recorded:
                return recorded
        return (self.device_of_event(event, index),)

    def device_of_event(self, event: int | None, index: int | None = None) -> Device:
        """The device that is named, or else that of an event, or else as :meth:`device` chooses.

        Raises
        ------
        UsageError
            If the trace has no such device, or none at all.
        """
        if index is None and event is not None and 0 <= event < self.trace.n_events:
            index = int(self.trace.device[event])
        return self.device(index)

    def peak(self, index: int | None = None) -> Moment:
        """The first moment at which a device's allocated bytes are at their highest."""
        return self.device(index).peak()

    def peak_reserved(self, index: int | None = None) -> Moment:
        """The first moment of a device's highest reserved bytes; that of allocated bytes where they are not known."""
        return self.device(index).peak_reserved()

    def at(self, event: int, index: int | None = None) -> Moment:
        """The moment after an event; −1 is before the first. Without a device, that of the event.

        Raises
        ------
        UsageError
            If the trace has no such event, or it is another device's.
        """
        return self.device_of_event(event, index).at(event)

    def end(self, index: int | None = None) -> Moment:
        """The moment after a device's last event."""
        return self.device(index).end()

    def kv_lens(self, index: int | None = None) -> KvLens:
        """A device's key/value cache over its events; false where none is known of."""
        return self.opinions(index).kv_lens

    def findings(self, index: int | None = None) -> Findings:
        """What deserves attention on a device, worst first."""
        return self.opinions(index).findings

    def oom(self, index: int | None = None, event: int | None = None, *, searches: bool = True) -> OomVerdict:
        """Why memory ran out on a device: that of the event if not given, else the first that ran out of memory.

        Raises
        ------
        UsageError
            If there is no such device, or the event is not one of its out-of-memory errors.
        """
        device = self.device_of_event(event, index)
        return self.opinions(device.index).oom(event, searches=searches)
