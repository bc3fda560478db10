"""The cause of a failed request: tests in a fixed order, the first that holds decides.

1. ``fraction-cap``: the driver still had room for what was asked of it, so only PyTorch's own cap can have refused.
2. ``stream-delayed-frees``: a block large enough lay free once delayed frees were complete. PyTorch waits for them
   before it gives up, but then asks the driver again and does not look at the blocks that became free.
3. ``private-pool``: a reclaim would have freed enough, but none is made while a graph is captured into a private pool.
4. ``external-fragmentation``: packed perfectly (each pool, stream and size class by itself, in the driver's pages of
   2 MiB) everything in use and the request would have fitted. Where less than 2 % of what PyTorch could have was free
   at all, or an optimizer had more of its state still to make than was free, that is ``capacity`` instead: a better
   layout only puts the failure off.
5. ``stream-delayed-frees``: the same, if the pending frees were complete.
6. ``private-pool``: the same, if other private pools gave their free memory back.
7. ``other-process``, ``non-pytorch``: the same, if others held nothing, or this process nothing beyond its context;
   ``cannot-tell`` where something outside PyTorch is large enough but was not told apart.
8. ``capacity``: none of these.

Packing is a bound that no setting of the allocator can beat, so that 8 is proved where it is said; whether a real
setting reaches it in case 4 is for the replay to show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from memscope.device.device import Device
from memscope.device.limits import DRIVER_SLACK_BYTES, FULL_FRAC
from memscope.device.to_come import optimizer_state_to_come
from memscope.oom._request import FailedRequest, Limit, Outside
from memscope.oom.room import Room, fitting_free_bytes, free_runs_without
from memscope.oom.verdict import Cause, OomClass
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import BlockState
from memscope.units import format_alike, format_bytes, format_count, format_fraction

_WINDOWS_PATH = re.compile(r"[A-Za-z]:\\")


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the tests look at."""

    device: Device
    config: CachingAllocatorConfig
    request: FailedRequest
    limit: Limit
    room: Room
    outside: Outside

    @property
    def has_private_pools(self) -> bool:
        """Whether any segment belonged to a private pool then."""
        return bool(np.any(self.room.state.segments.pool_id > 0))


def find_cause(situation: Situation) -> Cause:
    """Put the tests of this module in their order."""
    first = None
    also: list[OomClass] = []
    for test in (_fraction_cap, _delayed_block, _no_reclaim, _clearly_refused_with_room, _by_packing):
        cause = test(situation)
        if cause is None:
            continue
        if first is None:
            first = cause
        elif cause.verdict not in (first.verdict, OomClass.CANNOT_TELL, OomClass.CAPACITY):
            also.append(cause.verdict)
    assert first is not None, "the last test always answers"
    return Cause(first.verdict, first.reason, (*first.also, *also), first.numbers)


def _fraction_cap(s: Situation) -> Cause | None:
    if not s.limit.refused_by_cap:
        return None
    asked = format_bytes(s.request.driver_bytes)
    if s.limit.device_free_bytes is None:
        return Cause(
            OomClass.FRACTION_CAP,
            f"{asked} more would have passed the cap of {format_bytes(s.limit.high_bytes)} on what PyTorch may reserve",
        )
    had = format_bytes(s.limit.device_free_bytes)
    if s.limit.is_cap_recorded:
        why = "the cap on PyTorch's own share refused"
    else:
        n = format_count(s.limit.n_refused_with_room)
        why = f"{n} requests were refused so, at the same total: a cap on PyTorch's own share"
    return Cause(OomClass.FRACTION_CAP, f"the driver had {had} left for the {asked} asked of it: {why}")


def _delayed_block(s: Situation) -> Cause | None:
    """A block that only late frees made, or that pending ones would make."""
    room, rounded = s.room, s.request.rounded_bytes
    table = s.device.allocations
    if room.fits_block and len(room.late_rows):
        late = int(table.block_bytes[room.late_rows].sum())
        return Cause(
            OomClass.STREAM_DELAYED_FREES,
            f"a free block of {format_bytes(room.fits_block)} became whole only when frees that waited for other "
            f"streams ({format_bytes(late)}) were complete, after the allocator had looked for one",
            numbers=(("delayed", late),),
        )
    if not len(room.pending_rows):
        return None
    pending = int(table.block_bytes[room.pending_rows].sum())
    gone = room.state.blocks.state == BlockState.ACTIVE_PENDING_FREE
    segment, sizes = free_runs_without(room.state, gone)
    own = sizes[room.is_own[segment]]
    whole = (sizes == room.state.segments.size_bytes[segment]) & (room.state.segments.pool_id[segment] <= 0)
    from_driver = int(sizes[whole].sum()) + s.limit.low_bytes - room.state.reserved_bytes
    if np.any(fitting_free_bytes(own, rounded, s.config)) or from_driver >= s.request.driver_bytes:
        return Cause(
            OomClass.STREAM_DELAYED_FREES,
            f"{format_bytes(pending)} were freed but still waited for other streams; complete, they would have "
            "served it",
            numbers=(("delayed", pending),),
        )
    return None


def _no_reclaim(s: Situation) -> Cause | None:
    """Memory that a reclaim gives back is still there: none was made."""
    left = s.room.releasable_bytes
    if not left or left + s.limit.low_bytes - s.room.state.reserved_bytes < s.request.driver_bytes:
        return None
    if s.request.pool_id == 0 or (s.request.pool_id < 0 and not s.has_private_pools):
        return None
    return Cause(
        OomClass.PRIVATE_POOL,
        f"{format_bytes(left)} of cached memory outside this private pool could have been given back, but the "
        "allocator does not reclaim while a graph is captured (up to torch 2.11 also inside use_mem_pool)",
        numbers=(("private", left),),
    )


def _by_packing(s: Situation) -> Cause:
    """Tests 4 to 8, for both ends of what PyTorch could have had."""
    low, high = _packing(s, _room_bytes(s, s.limit.low_bytes)), _packing(s, _room_bytes(s, s.limit.high_bytes))
    if low.verdict is high.verdict or s.limit.refused_by_cap:
        return low
    return Cause(
        OomClass.CANNOT_TELL,
        "what PyTorch could have had is only known to lie between "
        f"{format_bytes(s.limit.low_bytes)} and {format_bytes(s.limit.high_bytes)}: the answer is "
        f"{low.verdict.words} at the one and {high.verdict.words} at the other",
    )


def _room_bytes(s: Situation, limit_bytes: int) -> int:
    """What is to be packed into; what the driver refused although it was free does not count."""
    free = s.limit.device_free_bytes
    if free is None or s.limit.refused_by_cap or free < s.request.driver_bytes:
        return limit_bytes
    return limit_bytes - min(free, DRIVER_SLACK_BYTES)


def _packing(s: Situation, limit_bytes: int) -> Cause:
    room = s.room
    if room.packed_bytes <= limit_bytes:
        free = room.usable_free_bytes + max(s.limit.low_bytes - room.state.reserved_bytes, 0)
        if free < FULL_FRAC * limit_bytes:
            return _full(free, limit_bytes)
        to_come = optimizer_state_to_come(s.device, s.request.event)
        if to_come > free:
            return Cause(
                OomClass.CAPACITY,
                f"{format_bytes(free)} were free, and the optimizer, which makes its state in its first step, had at "
                f"least {format_bytes(to_come)} of it still to make",
                (OomClass.EXTERNAL_FRAGMENTATION,),
            )
        spare = format_bytes(limit_bytes - room.packed_bytes)
        had, asked = format_alike(free, s.request.rounded_bytes)
        return Cause(
            OomClass.EXTERNAL_FRAGMENTATION,
            f"{had} were free, but no single place holds {asked}: packed perfectly it would fit with {spare} to spare",
        )
    lacking = room.packed_bytes - limit_bytes
    if room.packed_without_pending_bytes <= limit_bytes:
        return Cause(
            OomClass.STREAM_DELAYED_FREES,
            f"{format_bytes(room.pending_bytes)} were freed but still waited for other streams; with them there were "
            "enough bytes, without them not",
            numbers=(("delayed", room.pending_bytes),),
        )
    if room.packed_with_pools_bytes <= limit_bytes:
        private = room.free_bytes - room.usable_free_bytes
        return Cause(
            OomClass.PRIVATE_POOL,
            f"{format_bytes(private)} lie free in private pools that this request may not use; {format_bytes(lacking)} "
            "of it would have been enough",
            numbers=(("private", private),),
        )
    if s.limit.refused_by_cap:
        return _capacity(s, lacking, limit_bytes)
    return _refused_with_room(s) or _outside(s, lacking) or _capacity(s, lacking, limit_bytes)


def _outside(s: Situation, lacking: int) -> Cause | None:
    """Test 7: who holds what is lacking."""
    outside = s.outside
    others, own = outside.others_bytes or 0, outside.own_beyond_context_bytes or 0
    collectives = outside.collectives_bytes or 0
    need = f"{format_bytes(lacking)} were lacking"
    if others >= lacking or (others + own >= lacking and others >= own):
        also = (OomClass.NON_PYTORCH,) if own >= lacking else ()
        return Cause(
            OomClass.OTHER_PROCESS, f"{need}, and other processes hold {format_bytes(others)} of this device", also
        )
    if own >= lacking or others + own >= lacking:
        return Cause(
            OomClass.NON_PYTORCH,
            f"{need}, and this process holds {format_bytes(outside.own_bytes or 0)} outside PyTorch, "
            f"{format_bytes(own)} more than {_context_words(outside)}",
        )
    if outside.own_bytes is None and collectives >= lacking:
        return Cause(
            OomClass.NON_PYTORCH, f"{need}, and collectives (NCCL) hold {format_bytes(collectives)} outside PyTorch"
        )
    undivided = outside.undivided_bytes
    if undivided is not None and not outside.is_divided and undivided >= lacking:
        return Cause(
            OomClass.CANNOT_TELL,
            f"{need}, and {format_bytes(undivided)} are held outside PyTorch beyond a context: by this process or by "
            "another was not measured",
        )
    return None


def _context_words(outside: Outside) -> str:
    size = format_bytes(outside.context_bytes)
    return f"its context explains ({size})" if outside.is_context_measured else f"a context explains (up to {size})"


def _clearly_refused_with_room(s: Situation) -> Cause | None:
    return _refused_with_room(s) if s.limit.refused_with_room else None


def _refused_with_room(s: Situation) -> Cause | None:
    free = s.limit.device_free_bytes
    if free is None or s.limit.refused_by_cap or free < s.request.driver_bytes:
        return None
    return Cause(
        OomClass.CANNOT_TELL,
        f"the driver refused {format_bytes(s.request.driver_bytes)} although it said that {format_bytes(free)} were "
        "free",
    )


def refusals_with_room(s: Situation) -> list[str]:
    """What may refuse a request that the driver has room for, the likeliest first, and what tells each."""
    if s.limit.refused_by_cap:
        return []
    if not s.limit.refused_with_room:
        free = s.limit.device_free_bytes
        if free is None or free < s.request.driver_bytes:
            return []
        return [
            f"{format_bytes(free)} is as good as nothing: the driver keeps a little of a full device for itself, "
            "and what is left lies in pieces; see what else holds memory on the device"
        ]
    on_windows = (
        "Windows: other programs' memory counts as free until it is moved out, and the system commits no more than it "
        "can (Task Manager's dedicated and committed memory tell; so does the CUDA sysmem fallback setting)"
    )
    causes = [
        "a cap on PyTorch's share: torch.cuda.get_per_process_memory_fraction() tells, or per_process_memory_fraction "
        "in the allocator's settings",
        "another process that gave memory back in between: nvidia-smi beside the next run tells",
        "a limit around the process: a MIG slice, a container's or vGPU's quota, a limit of address space (ulimit -v)",
        "another allocator in this process that had just given back what the driver then counted",
    ]
    is_windows = _is_windows(s)
    if is_windows is not False:
        causes.insert(0 if is_windows else len(causes), on_windows)
    return [f"may have refused: {cause}" for cause in causes]


def _is_windows(s: Situation) -> bool | None:
    """Whether the recorded stacks name files as Windows does; None where no file has its whole path."""
    trace = s.device.trace
    files = np.unique(trace.stacks.filename_id)
    names = [trace.strings[i] for i in files[files >= 0].tolist()]
    if any(_WINDOWS_PATH.match(name) for name in names):
        return True
    return False if any(name.startswith("/") for name in names) else None


def _capacity(s: Situation, lacking: int, limit_bytes: int) -> Cause:
    needed, limit = format_alike(s.room.packed_bytes, limit_bytes)
    return Cause(
        OomClass.CAPACITY,
        f"even packed perfectly, what was in use and the request need {needed}: "
        f"{format_bytes(lacking)} more than the {limit} that PyTorch could have",
    )


def _full(free_bytes: int, limit_bytes: int) -> Cause:
    share = format_fraction(free_bytes / limit_bytes)
    return Cause(
        OomClass.CAPACITY,
        f"of the {format_bytes(limit_bytes)} that PyTorch could have, {format_bytes(free_bytes)} ({share}) were free, "
        "in whatever pieces: the device is full",
        (OomClass.EXTERNAL_FRAGMENTATION,),
    )
