"""Streams, events, CUDA graphs and memory pools of a dry run: no work is ordered, but they decide where memory lies."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typing_extensions import Self

from memscope.capture.dry_run._device import SimulatedDevice
from memscope.replay.caching.allocator import DEFAULT_POOL

_FIRST_HANDLE = 0x5500_0000_0000
_N_STREAMS = 32
"""PyTorch hands out so many streams of each priority, round and round."""

Pool = tuple[int, int]


class Streams:
    """What decides from which pool, and on which stream, a dry run's device serves.

    Parameters
    ----------
    device
        The simulated device.
    """

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        self._n_made: Counter[int] = Counter()
        self._n_pools = 0
        self._users: Counter[Pool] = Counter()
        self._pools_outside: list[Pool] = []
        self.default = _Stream(self, 0)
        self.current = self.default

    def new(self, priority: int = 0) -> _Stream:
        """The next stream of a priority."""
        n = self._n_made[priority] % _N_STREAMS
        self._n_made[priority] += 1
        level = 0 if priority >= 0 else 1
        return _Stream(self, _FIRST_HANDLE + 0x10 * (level * _N_STREAMS + n))

    def enter(self, stream: Any) -> None:
        """Make a stream the current one; None is no change."""
        if stream is not None:
            self.current = stream
            self.device.stream = stream.cuda_stream

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """``torch.cuda.stream``."""
        outer = self.current
        self.enter(stream)
        try:
            yield
        finally:
            self.enter(outer)

    def new_pool_id(self, *, is_handle: bool) -> Pool:
        """A pool's id; PyTorch counts those that a program asks for in the second place, a graph's own in the first."""
        self._n_pools += 1
        return (0, self._n_pools) if is_handle else (self._n_pools, 0)

    def begin(self, pool: Pool) -> None:
        """Serve from a pool until :meth:`end`."""
        self._pools_outside.append(self.device.pool)
        self.device.pool = pool

    def end(self) -> None:
        """Serve from the pool before."""
        self.device.pool = self._pools_outside.pop() if self._pools_outside else DEFAULT_POOL

    def use(self, pool: Pool) -> None:
        """One more holds a pool."""
        self._users[pool] += 1

    def drop(self, pool: Pool) -> None:
        """One that held a pool is gone; with the last, its memory can go back."""
        self._users[pool] -= 1
        if self._users[pool] <= 0:
            self.device.release_pool(pool)

    def record(self, address: int | None, stream: Any) -> None:
        """``Tensor.record_stream`` of an allocation."""
        if address is not None:
            self.device.use_on_stream(address, int(getattr(stream, "cuda_stream", 0)))

    def classes(self) -> dict[str, Any]:
        """Stand-ins for the classes of ``torch.cuda``, by name."""
        streams = self

        class Stream(_Stream):
            def __new__(cls, *_: Any, **__: Any) -> Self:
                return object.__new__(cls)

            def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:  # noqa: ARG002
                super().__init__(streams, streams.new(priority).cuda_stream)

        class CUDAGraph(_Graph):
            def __init__(self, *_: Any, **__: Any) -> None:
                super().__init__(streams)

        class MemPool(_MemPool):
            def __init__(self, *_: Any, **__: Any) -> None:
                super().__init__(streams)

        for made in (Stream, CUDAGraph, MemPool):
            made.__module__ = "torch.cuda"
        return {"Stream": Stream, "ExternalStream": Stream, "Event": Event, "CUDAGraph": CUDAGraph, "MemPool": MemPool}


class _Stream:
    """A stream; work on it is done as soon as it is asked for."""

    priority = 0

    def __init__(self, streams: Streams, handle: int) -> None:
        self._streams = streams
        self.device_index = streams.device.index
        self.cuda_stream = self.stream_id = handle

    @property
    def device(self) -> Any:
        """The device that it is of."""
        import torch

        return torch.device("cuda", self.device_index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stream) and other.cuda_stream == self.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device=cuda:{self.device_index} cuda_stream={self.cuda_stream:#x}>"

    def __enter__(self) -> Self:
        self._outer = self._streams.current
        self._streams.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.enter(self._outer)

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured on it."""
        return False

    def query(self) -> bool:
        """Whether all work is done; there never is any."""
        return True

    def record_event(self, event: Any = None) -> Any:
        """An event at this point of the stream."""
        return event if event is not None else Event()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def wait_stream(self, stream: Any) -> None:
        """Nothing to wait for."""

    def wait_event(self, event: Any) -> None:
        """Nothing to wait for."""


class Event:
    """An event that has happened as soon as it is recorded; the host's time passes between two."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._time_ns = time.perf_counter_ns()

    def record(self, stream: Any = None) -> None:  # noqa: ARG002
        """Record it."""
        self._time_ns = time.perf_counter_ns()

    def wait(self, stream: Any = None) -> None:
        """Nothing to wait for."""

    def query(self) -> bool:
        """Whether it has happened."""
        return True

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds between two events; never 0, which programs divide by."""
        return float(max(end_event._time_ns - self._time_ns, 1)) / 1e6


class _Graph:
    """A CUDA graph: what is allocated while it is captured lies in its private pool for as long as it lives."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._pool: Pool | None = None

    def capture_begin(self, pool: Pool | None = None, *_: Any, **__: Any) -> None:
        """Allocate from the graph's pool from now on."""
        self._release()
        self._pool = pool if pool is not None else self._streams.new_pool_id(is_handle=False)
        self._streams.use(self._pool)
        self._streams.begin(self._pool)

    def capture_end(self) -> None:
        """Allocate as before."""
        self._streams.end()

    def instantiate(self) -> None:
        """Nothing: nothing is run."""

    def replay(self) -> None:
        """Nothing: a replay allocates nothing."""

    def reset(self) -> None:
        """Let go of the pool."""
        self._release()

    def pool(self) -> Pool | None:
        """The id of the pool."""
        return self._pool

    def enable_debug_mode(self) -> None:
        """Nothing: there is no graph to print."""

    def debug_dump(self, debug_path: str) -> None:
        """Nothing: there is no graph to print."""

    def _release(self) -> None:
        if self._pool is not None:
            self._streams.drop(self._pool)
            self._pool = None

    def __del__(self) -> None:
        self._release()


class _MemPool:
    """A pool of memory of the program's own."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.id = streams.new_pool_id(is_handle=True)
        streams.use(self.id)

    def snapshot(self, include_traces: bool = True) -> list[dict[str, Any]]:  # noqa: ARG002
        """The segments of the pool: a dry run shows them in its whole snapshot alone."""
        return []

    def use_count(self) -> int:
        """How many hold it."""
        return self._streams._users[self.id]

    def __del__(self) -> None:
        self._streams.drop(self.id)
