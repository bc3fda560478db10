"""What the verdict on an out-of-memory error is made of, and its one line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from memscope.oom._request import FailedRequest, Limit, Outside
from memscope.oom.room import FreeGroup
from memscope.techniques.through import LetThrough
from memscope.units import format_alike, format_bytes

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
        ``setting``, ``blocks``, ``batch``, ``cap``, ``frees-complete``, ``pool-released``, ``no-pools``, ``outside``
        or ``kept`` (what is kept more and more of, let go of in time).
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
    n_events_after, fails_again_event
        For a setting: the events that the recording has after the request, over which the replay went on; the first of
        them that asked for memory and did not get it, None if none. Both None where it was not tried.
    spare_bytes
        For a setting: what the driver could still give PyTorch once the request is served; None where it was not tried.
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
    n_events_after: int | None = None
    fails_again_event: int | None = None
    spare_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """A class, why it is that one in a sentence, the others that hold too, and the bytes that its headline names."""

    verdict: OomClass
    reason: str
    also: tuple[OomClass, ...] = ()
    numbers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Remedies:
    """What would have let a request through.

    Attributes
    ----------
    found
        Changes that would have, the most useful first.
    not_found
        What was searched for and not found, or not checked, a sentence each.
    replay_error_bytes
        Replayed minus recorded reserved bytes at the failed request; None if the failure could not be replayed.
    """

    found: tuple[Counterfactual, ...] = ()
    not_found: tuple[str, ...] = ()
    replay_error_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """What lay free inside reserved memory when a request failed.

    Attributes
    ----------
    fits_block_bytes
        Largest free block that the request could have had, 0 if none.
    largest_bytes
        Largest free block of the request's own pool, stream and size class, whether large enough or not.
    pending_bytes, private_bytes, releasable_bytes
        Waiting for other streams; free in private pools that the request may not use; what a reclaim would still give.
    packed_bytes
        What a perfectly packed allocator would have to reserve for all that was in use and the request.
    groups
        Where it lay, by pool, stream and size class.
    """

    reserved_bytes: int
    free_bytes: int
    fits_block_bytes: int
    largest_bytes: int
    pending_bytes: int
    private_bytes: int
    releasable_bytes: int
    packed_bytes: int
    groups: tuple[FreeGroup, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that failed, and the memory around it right after the event.

    Attributes
    ----------
    owners
        The largest owners of live memory.
    limit, outside, free
        What PyTorch could have had, what lay outside it, what was free in it; None where the segments, on which all
        of them rest, were not recorded.
    """

    request: FailedRequest
    allocated_bytes: int
    active_bytes: int
    owners: tuple[OomOwner, ...]
    limit: Limit | None = None
    outside: Outside | None = None
    free: FreeMemory | None = None

    @property
    def device_free_bytes(self) -> int | None:
        """What the driver had left; None where that was not recorded."""
        return None if self.limit is None else self.limit.device_free_bytes


@dataclass(frozen=True, slots=True)
class OomVerdict:
    """Why one request of a device failed, and what would have let it through.

    Attributes
    ----------
    device
        Its index.
    events
        Every ``oom`` event of the device.
    failure
        None where nothing failed.
    evidence
        What the cause rests on, a sentence each.
    remedies
        Empty where none were searched.
    techniques
        Changes of the program, not only of settings, with which the request would have been served; the cheapest first.
    trust
        What weakens the verdict, a sentence each.
    is_certain
        Whether nothing weakens the cause itself.
    """

    device: int
    cause: Cause
    events: tuple[int, ...] = ()
    failure: Failure | None = None
    evidence: tuple[str, ...] = ()
    remedies: Remedies = Remedies()
    trust: tuple[str, ...] = ()
    is_certain: bool = True
    techniques: tuple[LetThrough, ...] = ()

    @property
    def verdict(self) -> OomClass:
        """The class of the cause."""
        return self.cause.verdict

    @property
    def reason(self) -> str:
        """Why it is that one, in a sentence."""
        return self.cause.reason

    @property
    def event(self) -> int | None:
        """Where the request failed; None where nothing did."""
        return None if self.failure is None else self.failure.request.event

    @property
    def counterfactual(self) -> Counterfactual | None:
        """The most useful change that would have let the request through; None if none was found."""
        return self.remedies.found[0] if self.remedies.found else None


def oom_headline(verdict: OomVerdict) -> str:
    """The verdict in one line of at most 120 characters.

    ``external fragmentation: 512.0 MiB asked, 1.9 GiB free in pieces of at most 240.0 MiB``
    """
    cause, failure = verdict.cause, verdict.failure
    if cause.verdict is OomClass.NO_OOM or failure is None:
        line = cause.verdict.words if cause.verdict is OomClass.NO_OOM else f"cannot tell: {cause.reason}"
    else:
        asked = f"{format_bytes(failure.request.rounded_bytes)} asked"
        line = f"{cause.verdict.words}: {asked}, {_facts(cause, failure)}"
    return line if len(line) <= HEADLINE_LENGTH else f"{line[: HEADLINE_LENGTH - 1].rstrip()}…"


def _facts(cause: Cause, failure: Failure) -> str:
    limit, outside, numbers = failure.limit, failure.outside, dict(cause.numbers)
    if cause.verdict is OomClass.EXTERNAL_FRAGMENTATION:
        return _pieces(failure)
    if cause.verdict is OomClass.STREAM_DELAYED_FREES:
        return f"{format_bytes(numbers.get('delayed', 0))} freed but waiting for other streams"
    if cause.verdict is OomClass.PRIVATE_POOL:
        return f"{format_bytes(numbers.get('private', 0))} free across the border of a private pool"
    if cause.verdict is OomClass.FRACTION_CAP:
        driver = failure.device_free_bytes
        room = "room" if driver is None else format_bytes(driver)
        return f"refused by a cap on PyTorch's share with {room} left on the device"
    if cause.verdict is OomClass.OTHER_PROCESS and outside is not None and outside.others_bytes is not None:
        return f"other processes hold {format_bytes(outside.others_bytes)} of the device"
    if cause.verdict is OomClass.NON_PYTORCH and outside is not None:
        held = outside.own_bytes if outside.own_bytes is not None else outside.collectives_bytes
        return f"this process holds {format_bytes(held or 0)} outside PyTorch"
    if cause.verdict is OomClass.CAPACITY and limit is not None:
        allocated, most = format_alike(failure.allocated_bytes, limit.high_bytes)
        return (
            f"{allocated} allocated of {'' if limit.low_bytes == limit.high_bytes else 'at most '}{most} "
            "that PyTorch could have"
        )
    return cause.reason


def _pieces(failure: Failure) -> str:
    driver = failure.device_free_bytes or 0
    found = failure.free
    # What lies in other private pools is not the request's to use.
    free, largest = (0, 0) if found is None else (found.free_bytes - found.private_bytes, found.largest_bytes)
    piece = max(largest, driver)
    if piece >= failure.request.rounded_bytes:
        return f"{format_bytes(free + driver)} free, but none of it where the settings let it be used"
    every, most = format_alike(free + driver, piece)
    return f"{every} free in pieces of at most {most}"
