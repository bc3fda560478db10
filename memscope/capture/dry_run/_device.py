"""The simulated device of a dry run: the allocator simulator, and the events and counters that its acts lead to."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from memscope._core import caching
from memscope.capture.dry_run._statistics import MemoryStatistics
from memscope.capture.stacks import StackRecorder
from memscope.device.limits import Limits
from memscope.gpus import GpuModel
from memscope.replay.caching.allocator import DEFAULT_POOL, CachingAllocator, SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.schema import Action, TieRule

if TYPE_CHECKING:
    from memscope.replay.config import CachingAllocatorConfig
    from memscope.trace.tables import SegmentTable

Clock = Callable[[], int]


class _Served(NamedTuple):
    """A live allocation: what was asked for and given, and the streams that use it beside its own."""

    requested_bytes: int
    block_bytes: int
    is_large: bool
    stream: int
    also_on: set[int]


_OF_SEGMENTS = (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP, Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)


class SimulatedDevice:
    """One device whose memory is only counted.

    Every request and release is handed to the caching allocator's simulator, and every event that this leads to is
    added to the trace with the Python stack that caused it.

    Parameters
    ----------
    builder
        The trace being made.
    gpu
        The device that is stood in for.
    config
        The allocator's settings.
    tie_rule
        Which of equal free blocks is taken (it depends on the PyTorch version).
    stacks
        Where stacks come from.
    clock
        Nanoseconds since the start of the run.
    index
        Which of the run's devices it is.
    """

    def __init__(
        self,
        builder: TraceBuilder,
        gpu: GpuModel,
        config: CachingAllocatorConfig,
        *,
        tie_rule: TieRule,
        stacks: StackRecorder,
        clock: Clock | None = None,
        index: int = 0,
    ) -> None:
        self.builder = builder
        self.gpu = gpu
        self.index = index
        self.stream = 0
        self.pool = DEFAULT_POOL
        self.config = config
        self.tie_rule = tie_rule
        self._allocator = self._new_allocator()
        self._stacks = stacks
        start_ns = time.perf_counter_ns()
        self.clock: Clock = clock or (lambda: time.perf_counter_ns() - start_ns)
        self._stack_of: dict[int, int] = {}
        self._served: dict[int, _Served] = {}
        self._waiting: list[int] = []
        self.oom_observers: list[Callable[[int, int, int, int], None]] = []
        """The program's own, each called with device, bytes asked for, reserved and free when memory runs out."""
        self.settings_not_followed: str | None = None
        self.before_first: Callable[[], None] | None = None
        """Called before the first request is served: PyTorch reads its settings then."""
        self.statistics = MemoryStatistics()
        self.is_serving = False
        """Whether a request is being served at this moment, whose events are not all in the trace."""

    def _new_allocator(self) -> CachingAllocator:
        return CachingAllocator(
            self.config, Limits(self.gpu.total_bytes, self.gpu.context_bytes), tie_rule=self.tie_rule
        )

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was asked for yet."""
        return not self.builder.n_events

    def configure(self, config: CachingAllocatorConfig) -> None:
        """Take other settings, before the first request; what changes them later is noted, and not followed."""
        if config == self.config:
            return
        if not self.is_untouched:
            self.settings_not_followed = config.to_conf()
            return
        self.config = config
        self._allocator = self._new_allocator()

    def malloc(self, requested_bytes: int) -> tuple[int, int]:
        """Allocate on the current stream, from the current pool.

        Returns
        -------
        tuple of int
            The alloc event's position in the trace, and the address.

        Raises
        ------
        SimulatedOutOfMemoryError
            If the device has no room, after what the allocator tries first; the ``oom`` event is in the trace.
        """
        if self.before_first is not None:
            prepare, self.before_first = self.before_first, None
            prepare()
        self.is_serving = True
        try:
            return self._serve(requested_bytes)
        finally:
            self.is_serving = False

    def _serve(self, requested_bytes: int) -> tuple[int, int]:
        stack_id = self._stacks.current()
        self._complete_frees()
        try:
            address = self._allocator.malloc(requested_bytes, self.stream, self.pool)
        except SimulatedOutOfMemoryError:
            self._record(stack_id)
            raise
        block_bytes = self._allocator.block_bytes(address)
        is_large = caching.round_size(requested_bytes, self.config.roundup_divisions) > caching.SMALL_BYTES
        self._record(stack_id)
        self._served[address] = _Served(requested_bytes, block_bytes, is_large, self.stream, set())
        self.statistics.served(requested_bytes, block_bytes, is_large=is_large)
        event = self.builder.n_events - 1
        self._stack_of[address] = stack_id
        return event, address

    def use_on_stream(self, address: int, stream: int) -> None:
        """Another stream uses an allocation too: ``record_stream``."""
        served = self._served.get(address)
        if served is not None and stream != served.stream:
            served.also_on.add(stream)

    def free(self, address: int) -> None:
        """Release an allocation; one that another stream used waits until the next request, when its event has come."""
        self.is_serving = True
        try:
            self._release(address)
        finally:
            self.is_serving = False

    def _release(self, address: int) -> None:
        served = self._served.pop(address, None)
        waits = served is not None and bool(served.also_on)
        self._allocator.free(address, waits=waits)
        if waits:
            self._waiting.append(address)
        self._stack_of.pop(address, None)
        if served is not None:
            self.statistics.served(served.requested_bytes, served.block_bytes, is_large=served.is_large, sign=-1)
        self._record(self._stacks.current())

    def _complete_frees(self) -> None:
        if self._waiting:
            for address in self._waiting:
                self._allocator.complete_free(address)
            self._waiting.clear()
            self._record(self._stacks.current())

    def release_pool(self, pool: tuple[int, int]) -> None:
        """Nothing refers to a private pool any more: what is free in it can go back to the driver."""
        self._allocator.release_pool(pool)

    def empty_cache(self) -> None:
        """Give free segments back to the device."""
        self.is_serving = True
        try:
            self._waiting.clear()  # the allocator waits for them
            self._allocator.empty_cache()
            self._record(self._stacks.current())
        finally:
            self.is_serving = False

    def limit(self, fraction: float) -> None:
        """Cap PyTorch's share from now on: ``set_per_process_memory_fraction``.

        Raises
        ------
        ValueError
            If it is no share, in PyTorch's words.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
        self.config = replace(self.config, memory_fraction=fraction)
        self._allocator.limit(int(fraction * self.gpu.total_bytes))

    @property
    def allocated_bytes(self) -> int:
        """What ``torch.cuda.memory_allocated`` says."""
        return self.statistics.of("allocated_bytes").current

    @property
    def reserved_bytes(self) -> int:
        """What ``torch.cuda.memory_reserved`` says."""
        return self.statistics.of("reserved_bytes").current

    def memory_stats(self) -> OrderedDict[str, int]:
        """What ``torch.cuda.memory_stats`` says."""
        return self.statistics.as_torch_says(self._allocator.state(), self._allocator.stats)

    @property
    def free_bytes(self) -> int:
        """Memory that the driver would report as free."""
        return self.gpu.usable_bytes - self.reserved_bytes

    def _record(self, stack_id: int) -> None:
        now_ns = self.clock()
        for action, address, size_bytes, stream, pool in self._allocator.drain_events():
            if action == Action.OOM:
                self.builder.add_sample(time_ns=now_ns, device=self.index, device_free_bytes=self.free_bytes)
            self.builder.add_event(
                action,
                address=address,
                size_bytes=size_bytes,
                time_ns=now_ns,
                device=self.index,
                stream=stream,
                pool=pool,
                stack_id=stack_id,
            )
            if action in _OF_SEGMENTS:
                self.statistics.segment(action, size_bytes)

    def write_final_state(self, builder: TraceBuilder) -> None:
        """Write the segments and blocks of this moment into a trace."""
        state = self._allocator.state()
        segment_ids = [self._add_segment(builder, state.segments, row) for row in range(len(state.segments))]
        blocks = state.blocks
        for row in range(len(blocks)):
            address = int(blocks.address[row])
            builder.add_block(
                segment_ids[int(blocks.segment_id[row])],
                address=address,
                size_bytes=int(blocks.size_bytes[row]),
                requested_bytes=int(blocks.requested_bytes[row]),
                state=int(blocks.state[row]),
                stack_id=self._stack_of.get(address, -1),
            )

    def _add_segment(self, builder: TraceBuilder, segments: SegmentTable, row: int) -> int:
        return builder.add_segment(
            device=self.index,
            address=int(segments.address[row]),
            size_bytes=int(segments.size_bytes[row]),
            is_large=bool(segments.is_large[row]),
            is_expandable=bool(segments.is_expandable[row]),
            stream=self._allocator.stream_handles[int(segments.stream_id[row])],
            pool=self._allocator.pools[int(segments.pool_id[row])],
        )


class Devices:
    """The devices of a run, all alike, and which of them is the current one."""

    def __init__(self, devices: Sequence[SimulatedDevice]) -> None:
        self._devices = tuple(devices)
        self.current_index = 0

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[SimulatedDevice]:
        return iter(self._devices)

    @property
    def current(self) -> SimulatedDevice:
        """The current device, which work goes to that names none."""
        return self._devices[self.current_index]

    def of(self, index: int | None) -> SimulatedDevice:
        """A device by its index; the current one for None.

        Raises
        ------
        RuntimeError
            If there is none of the index, in CUDA's words.
        """
        if index is None:
            return self.current
        if not 0 <= index < len(self._devices):
            n = "one device" if len(self._devices) == 1 else f"{len(self._devices)} devices"
            raise RuntimeError(f"CUDA error: invalid device ordinal (a dry run has {n}, not cuda:{index})")
        return self._devices[index]

    def enter(self, index: int | None) -> None:
        """Make a device the current one; None is no change."""
        if index is not None and index >= 0:
            self.current_index = self.of(index).index
