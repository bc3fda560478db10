"""The simulated device of a dry run: requests go to the allocator simulator, what it does becomes the trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from memscope.capture.stacks import StackRecorder
from memscope.device.limits import Limits
from memscope.gpus import GpuModel
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.schema import Action, TieRule

if TYPE_CHECKING:
    from memscope.replay.config import CachingAllocatorConfig
    from memscope.trace.tables import SegmentTable

Clock = Callable[[], int]


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
    ) -> None:
        self.builder = builder
        self.gpu = gpu
        self.stream = 0
        self._allocator = CachingAllocator(config, Limits(gpu.total_bytes, gpu.context_bytes), tie_rule=tie_rule)
        self._stacks = stacks
        start_ns = time.perf_counter_ns()
        self.clock: Clock = clock or (lambda: time.perf_counter_ns() - start_ns)
        self._stack_of: dict[int, int] = {}
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self.max_allocated_bytes = 0
        self.max_reserved_bytes = 0
        self.n_ooms = 0

    def malloc(self, requested_bytes: int) -> tuple[int, int]:
        """Allocate on the current stream.

        Returns
        -------
        tuple of int
            The alloc event's position in the trace, and the address.

        Raises
        ------
        SimulatedOutOfMemoryError
            If the device has no room, after what the allocator tries first; the ``oom`` event is in the trace.
        """
        stack_id = self._stacks.current()
        try:
            address = self._allocator.malloc(requested_bytes, stream=self.stream)
        except SimulatedOutOfMemoryError:
            self.n_ooms += 1
            self._record(stack_id)
            raise
        self._record(stack_id)
        event = self.builder.n_events - 1
        self._stack_of[address] = stack_id
        return event, address

    def free(self, address: int) -> None:
        """Release an allocation."""
        self._allocator.free(address)
        self._stack_of.pop(address, None)
        self._record(self._stacks.current())

    def empty_cache(self) -> None:
        """Give free segments back to the device."""
        self._allocator.empty_cache()
        self._record(self._stacks.current())

    def reset_peaks(self) -> None:
        """Forget the peaks, as ``torch.cuda.reset_peak_memory_stats`` does."""
        self.max_allocated_bytes = self.allocated_bytes
        self.max_reserved_bytes = self.reserved_bytes

    @property
    def free_bytes(self) -> int:
        """Memory that the driver would report as free."""
        return self.gpu.usable_bytes - self.reserved_bytes

    def _record(self, stack_id: int) -> None:
        now_ns = self.clock()
        for action, address, size_bytes, stream, pool in self._allocator.drain_events():
            if action == Action.OOM:
                self.builder.add_sample(time_ns=now_ns, device_free_bytes=self.free_bytes)
            self.builder.add_event(
                action,
                address=address,
                size_bytes=size_bytes,
                time_ns=now_ns,
                stream=stream,
                pool=pool,
                stack_id=stack_id,
            )
            self._count(int(action), size_bytes)
        self.allocated_bytes = self._allocator.stats.allocated_bytes
        self.max_allocated_bytes = max(self.max_allocated_bytes, self.allocated_bytes)
        self.max_reserved_bytes = max(self.max_reserved_bytes, self.reserved_bytes)

    def _count(self, action: int, size_bytes: int) -> None:
        if action in (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP):
            self.reserved_bytes += size_bytes
        elif action in (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP):
            self.reserved_bytes -= size_bytes

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
            address=int(segments.address[row]),
            size_bytes=int(segments.size_bytes[row]),
            is_large=bool(segments.is_large[row]),
            is_expandable=bool(segments.is_expandable[row]),
            stream=self._allocator.stream_handles[int(segments.stream_id[row])],
            pool=self._allocator.pools[int(segments.pool_id[row])],
        )
