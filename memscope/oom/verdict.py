"""What the verdict on an out-of-memory error is made of, and its one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from memscope.oom.outside import Outside
from memscope.oom.request import FailedRequest, Limit
from memscope.oom.room import FreeGroup
from memscope.units import format_bytes

HEADLINE_LENGTH = 120


class OomClass(str, Enum):
    """Why a request failed. The values are the words of the JSON contract."""

    CAPACITY = "capacity"
    """Even packed perfectly, what was in use and the request are more than PyTorch could have."""
    EXTERNAL_FRAGMENTATION = "external-fragmentation"
    """Enough bytes were free, in pools that the request can draw on, but in no single place."""
    STREAM_DELAYED_FREES = "stream-delayed-frees"
    """Memory that was freed, but waited for other streams, would have served it."""
    PRIVATE_POOL = "private-pool"
    """Memory that lay free on the other side of a private pool's border would have served it."""
    NON_PYTORCH = "non-pytorch"
    """This process held memory outside PyTorch, beyond its context, that was missing."""
    OTHER_PROCESS = "other-process"
    """Other processes held the memory that was missing."""
    FRACTION_CAP = "fraction-cap"
    """The driver had room: a cap on PyTorch's share refused."""
    CANNOT_TELL = "cannot-tell"
    """The recording does not hold what a cause would rest on."""
    NO_OOM = "no-oom"
    """No request failed."""

    @property
    def words(self) -> str:
        """The name as it is said in a sentence: ``external fragmentation``."""
        return _WORDS[self]


_WORDS = {
    OomClass.CAPACITY: "capacity",
    OomClass.EXTERNAL_FRAGMENTATION: "external fragmentation",
    OomClass.STREAM_DELAYED_FREES: "stream-delayed frees",
    OomClass.PRIVATE_POOL: "private pool",
    OomClass.NON_PYTORCH: "memory outside PyTorch",
    OomClass.OTHER_PROCESS: "another process",
    OomClass.FRACTION_CAP: "fraction cap",
    OomClass.CANNOT_TELL: "cannot tell",
    OomClass.NO_OOM: "no request failed",
}


@dataclass(frozen=True, slots=True)
class OomOwner:
    """Live memory of one category that one line of code, or one module, made.

    ``owner`` is the name of its largest allocation; None where no owner was seen. ``n_owners`` counts distinct names.
    """

    category: str
    owner: str | None
    site: str | None
    block_bytes: int
    n_allocations: int
    n_owners: int


@dataclass(frozen=True, slots=True)
class FreedBlock:
    """One live block that a counterfactual takes away."""

    address: int
    block_bytes: int
    category: str
    owner: str | None
    site: str | None
    alloc_event: int | None


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """One change that would have let the request through.

    Attributes
    ----------
    kind
        ``setting``, ``blocks``, ``batch``, ``cap``, ``frees-complete``, ``pool-released``, ``no-pools`` or
        ``outside``.
    text
        The change in words.
    checked
        ``exact``: served in a replay of the recorded requests with this change; ``modelled``: served in a replay that
        rests on an assumption, which ``note`` names; ``unchecked``: no replay could check it, and ``note`` says why.
    changed_bytes
        Bytes that it frees, saves or adds; None where that means nothing.
    conf, line
        Allocator settings, and the line to set; None for other kinds.
    blocks, n_blocks
        The largest blocks that it takes away, and their number.
    reduction_frac
        Share by which a batch shrinks; None for other kinds.
    """

    kind: str
    text: str
    checked: str
    note: str = ""
    changed_bytes: int | None = None
    conf: str | None = None
    line: str | None = None
    blocks: tuple[FreedBlock, ...] = ()
    n_blocks: int = 0
    reduction_frac: float | None = None


@dataclass(frozen=True, slots=True)
class OomVerdict:
    """Why one request of a device failed, and what would have let it through.

    Attributes
    ----------
    verdict, reason
        The cause, and why it is that one, in a sentence.
    device, event
        Where; ``event`` is None where nothing failed.
    events
        Every ``oom`` event of the device.
    request, limit, outside
        What failed, what PyTorch could have had, what lay outside it; None where not known.
    allocated_bytes, active_bytes, reserved_bytes
        PyTorch's counters right after the event; None where not measured.
    free_bytes
        Free bytes inside reserved memory; what the driver had left is in ``limit``.
    fits_block_bytes
        Largest free block that the request could have had, 0 if none.
    largest_free_bytes
        Largest free block of the request's own pool, stream and size class, whether large enough or not.
    pending_bytes, private_free_bytes, releasable_bytes
        Waiting for other streams; free in private pools that the request may not use; what a reclaim would still give.
    packed_bytes
        What a perfectly packed allocator would have to reserve for all this and the request.
    evidence
        What the cause rests on, a sentence each.
    also
        Other causes that would have been enough by themselves to let it through, weaker ones after this.
    groups, owners
        Where free memory lay; the largest owners of live memory.
    counterfactuals
        Changes that would have let it through, the most useful first.
    not_found
        What was searched for and not found, or not checked, a sentence each.
    trust
        What weakens the verdict, a sentence each.
    is_certain
        Whether nothing weakens the cause itself.
    replay_error_bytes
        Replayed minus recorded reserved bytes at the failed request; None if the failure could not be replayed.
    """

    verdict: OomClass
    reason: str
    device: int
    event: int | None = None
    events: tuple[int, ...] = ()
    request: FailedRequest | None = None
    limit: Limit | None = None
    outside: Outside | None = None
    allocated_bytes: int | None = None
    active_bytes: int | None = None
    reserved_bytes: int | None = None
    free_bytes: int | None = None
    fits_block_bytes: int | None = None
    largest_free_bytes: int | None = None
    pending_bytes: int | None = None
    private_free_bytes: int | None = None
    releasable_bytes: int | None = None
    packed_bytes: int | None = None
    evidence: tuple[str, ...] = ()
    also: tuple[OomClass, ...] = ()
    groups: tuple[FreeGroup, ...] = ()
    owners: tuple[OomOwner, ...] = ()
    counterfactuals: tuple[Counterfactual, ...] = ()
    not_found: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    is_certain: bool = True
    replay_error_bytes: int | None = None
    headline_numbers: dict[str, int] = field(default_factory=dict)

    @property
    def counterfactual(self) -> Counterfactual | None:
        """The most useful change that would have let the request through; None if none was found."""
        return self.counterfactuals[0] if self.counterfactuals else None


def oom_headline(verdict: OomVerdict) -> str:
    """The verdict in one line of at most 120 characters.

    ``external fragmentation: 512.0 MiB asked, 1.9 GiB free in pieces of at most 240.0 MiB``
    """
    if verdict.verdict is OomClass.NO_OOM or verdict.request is None:
        line = verdict.verdict.words if verdict.verdict is OomClass.NO_OOM else f"cannot tell: {verdict.reason}"
    else:
        asked = f"{format_bytes(verdict.request.rounded_bytes)} asked"
        line = f"{verdict.verdict.words}: {asked}, {_facts(verdict)}"
    return line if len(line) <= HEADLINE_LENGTH else f"{line[: HEADLINE_LENGTH - 1].rstrip()}…"


def _facts(verdict: OomVerdict) -> str:
    limit, outside = verdict.limit, verdict.outside
    driver = 0 if limit is None or limit.device_free_bytes is None else limit.device_free_bytes
    free = (verdict.free_bytes or 0) + driver
    if verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION:
        piece = max(verdict.largest_free_bytes or 0, driver)
        if verdict.request is not None and piece >= verdict.request.rounded_bytes:
            return f"{format_bytes(free)} free, but none of it where the settings let it be used"
        return f"{format_bytes(free)} free in pieces of at most {format_bytes(piece)}"
    if verdict.verdict is OomClass.STREAM_DELAYED_FREES:
        return f"{format_bytes(verdict.headline_numbers.get('delayed', 0))} freed but waiting for other streams"
    if verdict.verdict is OomClass.PRIVATE_POOL:
        return f"{format_bytes(verdict.headline_numbers.get('private', 0))} free across the border of a private pool"
    if verdict.verdict is OomClass.FRACTION_CAP:
        room = "room" if limit is None or limit.device_free_bytes is None else format_bytes(limit.device_free_bytes)
        return f"refused by a cap on PyTorch's share with {room} left on the device"
    if verdict.verdict is OomClass.OTHER_PROCESS and outside is not None and outside.others_bytes is not None:
        return f"other processes hold {format_bytes(outside.others_bytes)} of the device"
    if verdict.verdict is OomClass.NON_PYTORCH and outside is not None:
        held = outside.own_bytes if outside.own_bytes is not None else outside.collectives_bytes
        return f"this process holds {format_bytes(held or 0)} outside PyTorch"
    if verdict.verdict is OomClass.CAPACITY and limit is not None and verdict.allocated_bytes is not None:
        return (
            f"{format_bytes(verdict.allocated_bytes)} allocated of {format_bytes(limit.high_bytes)} "
            "that PyTorch could have"
        )
    return verdict.reason
