"""Programs that run out of memory for one known reason, recorded on a simulated device."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field

from memscope.device.limits import Limits
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from memscope.units import GiB, MiB
from tests.replay.recordings import add_final_state

SECOND = 1_000_000_000
PRIVATE = (0, 1)
OTHER_STREAM = 0x7000


@dataclass
class Program:
    """A program on a simulated device: what it asks for is noted, and what the allocator does is recorded.

    ``outside_bytes`` is what others hold of the device; ``fraction`` caps PyTorch's share.
    """

    total: int
    conf: str = ""
    outside_bytes: int = 0
    fraction: float = 1.0
    knows_total: bool = True
    knows_fraction: bool = True
    knows_free: bool = True
    ops: list = field(default_factory=list)
    builder: TraceBuilder = field(default_factory=TraceBuilder)
    addresses: dict = field(default_factory=dict)
    key_of_event: dict = field(default_factory=dict)
    failed: tuple | None = None

    def __post_init__(self):
        self.allocator = self._allocator(self.conf, 0)

    def _allocator(self, conf, more_bytes, fraction=None):
        fraction = self.fraction if fraction is None else fraction
        config = dataclasses.replace(CachingAllocatorConfig.parse(conf), memory_fraction=fraction)
        total = self.total + more_bytes
        return CachingAllocator(config, limits=Limits(total, self.outside_bytes))

    @property
    def left(self):
        """What the driver, or the cap, would still give."""
        reserved = self.allocator.stats.reserved_bytes
        return min(self.total - self.outside_bytes, int(self.fraction * self.total)) - reserved

    def malloc(self, size, stream=0, pool=(0, 0), category=None):
        key = len(self.ops)
        self.ops.append(("malloc", key, size, stream, pool))
        try:
            self.addresses[key] = self.allocator.malloc(size, stream, pool)
        except SimulatedOutOfMemoryError as error:
            self.ops.pop()
            self.failed = (size, stream, pool)
            self._note(error.free_bytes)
            return None
        event = self._note()
        self.key_of_event[event] = key
        if category is not None:
            self.builder.set_owner(event, category, f"tensor {key}")
        return key

    def free(self, key, waits=False):
        self.ops.append(("free", key, waits))
        self.allocator.free(self.addresses[key], waits=waits)
        self._note()

    def empty_cache(self):
        """What a program does that asks for it; repeated nowhere else."""
        self.allocator.empty_cache()
        self._note()

    def forget(self):
        """What was recorded until now is gone: the recording begins here."""
        self.builder, self.key_of_event = TraceBuilder(), {}

    def fail(self, size, stream=0, pool=(0, 0), free_bytes=None):
        """A request that fails without any reclaim, as while a graph is captured."""
        time_ns = self.builder.n_events * SECOND
        self.builder.add_sample(time_ns=time_ns, device_free_bytes=self.left if free_bytes is None else free_bytes)
        return self.builder.add_event(
            Action.OOM, address=-1, size_bytes=size, time_ns=time_ns, stream=stream, pool=pool
        )

    def sample(self, own_bytes, others_bytes):
        """The device's own count now, half a second after the last event."""
        reserved = self.allocator.stats.reserved_bytes
        self.builder.add_sample(
            time_ns=self.builder.n_events * SECOND - SECOND // 2,
            device_free_bytes=self.total - reserved - own_bytes - others_bytes,
            device_used_bytes=reserved + own_bytes + others_bytes,
            process_used_bytes=reserved + own_bytes,
            others_used_bytes=others_bytes,
        )

    def _note(self, free_bytes=None):
        event = -1
        for action, address, size, stream, pool in self.allocator.drain_events():
            time_ns = self.builder.n_events * SECOND
            if action == Action.OOM and free_bytes is not None and self.knows_free:
                self.builder.add_sample(time_ns=time_ns, device_free_bytes=free_bytes)
            event = self.builder.add_event(
                action,
                address=-1 if action == Action.OOM else address,
                size_bytes=size,
                time_ns=time_ns,
                stream=stream,
                pool=pool,
            )
        return event

    def trace(self, **metadata) -> Trace:
        """The trace so far; metadata given here takes the place of the program's own."""
        add_final_state(self.builder, self.allocator)
        config = CachingAllocatorConfig.parse(self.conf)
        return self.builder.build(dataclasses.replace(self._metadata(config), **metadata))

    def _metadata(self, config):
        return TraceMetadata(
            source="synthetic",
            torch_version="2.13.0",
            alloc_conf=self.conf,
            allocator_settings={
                "max_split_size": config.max_split_bytes or -1,
                "garbage_collection_threshold": config.gc_threshold_frac,
                "expandable_segments": config.is_expandable,
                "roundup_power2_divisions": {str(1 << i): n for i, n in enumerate(config.roundup_divisions)},
            },
            device_total_bytes={0: self.total} if self.knows_total else {},
            memory_fraction={0: self.fraction} if self.knows_fraction and self.fraction < 1 else {},
            has_pool_ids=True,
        )

    def survives(
        self, *, conf=None, freed_events=(), more_bytes=0, completes=False, one_pool=False, scale=None, fraction=None
    ):
        """Whether the failed request is served when everything is asked for again, call by call, with a change."""
        allocator = self._allocator(self.conf if conf is None else conf, more_bytes, fraction)
        addresses = {}
        for name, key, *rest in self.ops:
            if name == "malloc":
                size, stream, pool = rest
                size = size if scale is None else max(int(size * scale(key)), 1)
                try:
                    addresses[key] = allocator.malloc(size, stream, (0, 0) if one_pool else pool)
                except SimulatedOutOfMemoryError:
                    return False
            else:
                allocator.free(addresses[key], waits=rest[0] and not completes)
        for event in freed_events:
            allocator.free(addresses[self.key_of_event[event]])
        size, stream, pool = self.failed
        try:
            allocator.malloc(size, stream, (0, 0) if one_pool else pool)
        except SimulatedOutOfMemoryError:
            return False
        return True


def full(total=1 * GiB, **options):
    """Ten blocks of 100 MiB on 1 GiB: 24 MiB are left, and nothing is free inside."""
    program = Program(total, **options)
    for _ in range(10):
        program.malloc(100 * MiB)
    return program


def nearly_full():
    """1024 MiB with 16 free: two holes of 6 beside live blocks, and 4 that the driver has left."""
    program = Program(1 * GiB)
    for _ in range(40):
        program.malloc(24 * MiB)
    for _ in range(2):
        program.free(program.malloc(30 * MiB))
        program.malloc(24 * MiB)
    return program


def holes_between_pins(program, late=False):
    """Four segments of 64 MiB, in each a hole of 50 MiB and a live block; one of the live blocks is smaller."""
    for key in [program.malloc(64 * MiB) for _ in range(4)]:
        program.free(key)
    holes = []
    for size in (12, 12, 10, 12):
        holes.append(program.malloc(50 * MiB))
        program.malloc(size * MiB)
    if late:
        program.forget()
    for key in holes:
        program.free(key)
    program.malloc(60 * MiB)
    return program


def _even(rng, low_mib, high_mib):
    """A multiple of 2 MiB, so that a segment holds exactly one block of it."""
    return 2 * MiB * rng.randint(low_mib // 2, high_mib // 2)


def _small_change(program, rng):
    """Small blocks that come and go, as every program has them."""
    keys = [program.malloc(rng.randint(1, 200_000), category=Category.TEMPORARIES) for _ in range(rng.randint(5, 30))]
    for key in keys[:: rng.randint(1, 3)]:
        program.free(key)


def _fill(program, rng, leave_bytes, category=Category.ACTIVATIONS):
    """Live blocks, whole segments each, until less than that is left."""
    slack = 32 * MiB if program.conf else 12 * MiB
    while program.left > leave_bytes + slack:
        most = min((program.left - leave_bytes) // MiB, 512)
        program.malloc(_even(rng, 12, max(int(most), 12)), category=category)


def _total(rng):
    return rng.choice([2, 4, 6]) * GiB


def _conf(rng):
    return rng.choice(["", "", "expandable_segments:True", "roundup_power2_divisions:4", "max_split_size_mb:200"])


def _more_than_all(program, rng):
    """A request larger than everything that is free anywhere."""
    stats = program.allocator.stats
    free = stats.reserved_bytes - stats.active_bytes
    return program.left + free + _even(rng, 8, 400) + rng.randint(1, MiB)


def capacity(rng):
    """Everything is in use, and the request is larger than the rest."""
    context = _even(rng, 200, 600)
    measured = rng.random() < 0.5
    program = Program(_total(rng), _conf(rng), outside_bytes=context, knows_total=measured)
    _small_change(program, rng)
    if measured:
        program.sample(context, 0)
    _fill(program, rng, _even(rng, 12, 100))
    program.malloc(_more_than_all(program, rng))
    return program


def external_fragmentation(rng):
    """Small live blocks in every segment: the holes between them are together large, and each too small."""
    conf = rng.choice(["", "", "max_split_size_mb:1024"])
    stream = rng.choice([0, 0, OTHER_STREAM])
    program = Program(_total(rng), conf, outside_bytes=_even(rng, 100, 500), knows_total=rng.random() < 0.5)
    _small_change(program, rng)
    size = _even(rng, 40, 200)
    pin = _even(rng, 2, 6) + MiB // 2
    hole = size - pin - 2 * MiB
    _fill(program, rng, program.left - rng.randint(0, 40) * program.left // 100)
    wholes = [program.malloc(size, stream) for _ in range(program.left // size)]
    for key in wholes:
        program.free(key)
    holes = []
    for _ in wholes:
        holes.append(program.malloc(hole, stream, category=Category.ACTIVATIONS))
        program.malloc(pin, stream, category=Category.OPTIMIZER_STATE)
    for key in holes:
        program.free(key)
    program.malloc(max(hole, program.left) + rng.randint(1, 20) * MiB + MiB, stream)
    return program


def stream_delayed_frees(rng):
    """A block that another stream still uses was freed beside a live one: it is whole only when it is too late."""
    program = Program(_total(rng), outside_bytes=_even(rng, 100, 500), knows_total=rng.random() < 0.5)
    _small_change(program, rng)
    size = _even(rng, 100, 400)
    program.free(program.malloc(size))
    late = program.malloc(size - 20 * MiB)
    program.malloc(19 * MiB, category=Category.WEIGHTS)
    _fill(program, rng, 0)
    program.free(late, waits=True)
    program.malloc(rng.randint(program.left // MiB + 3, size // MiB - 20) * MiB)
    return program


def private_pool(rng):
    """Memory lies unused in a private pool that is alive."""
    program = Program(_total(rng), outside_bytes=_even(rng, 100, 500), knows_total=rng.random() < 0.5)
    _small_change(program, rng)
    sizes = [_even(rng, 60, 200) for _ in range(rng.randint(2, 5))]
    keys = [program.malloc(size, 0, PRIVATE) for size in sizes]
    for key in keys:
        program.free(key)
    _fill(program, rng, _even(rng, 12, 30))
    program.malloc(rng.randint(program.left // MiB + 3, sum(sizes) // MiB) * MiB)
    return program


def non_pytorch(rng):
    """What this process holds outside PyTorch has grown far beyond its context."""
    return _outside(rng, is_own=True)


def other_process(rng):
    """Another process holds what is lacking."""
    return _outside(rng, is_own=False)


def _outside(rng, is_own):
    context, grown = _even(rng, 200, 500), _even(rng, 1600, 2400)
    program = Program(rng.choice([6, 8]) * GiB, _conf(rng), outside_bytes=context + grown)
    program.malloc(64 * MiB, category=Category.WEIGHTS)
    program.sample(context, 0)
    _small_change(program, rng)
    _fill(program, rng, _even(rng, 12, 100))
    program.sample(context + grown if is_own else context, 0 if is_own else grown)
    program.malloc(_more_than_all(program, rng))
    return program


def fraction_cap(rng):
    """The device has room: PyTorch may not have it."""
    knows = rng.random() < 0.5
    program = Program(
        rng.choice([8, 16]) * GiB,
        rng.choice(["", "", "expandable_segments:True", "garbage_collection_threshold:0.6"]),
        outside_bytes=_even(rng, 100, 500),
        fraction=rng.choice([0.25, 0.3, 0.5]),
        knows_total=knows or rng.random() < 0.5,
        knows_fraction=knows,
    )
    _small_change(program, rng)
    _fill(program, rng, _even(rng, 12, 100))
    program.malloc(_more_than_all(program, rng))
    return program


def no_oom(rng):
    """Everything was served."""
    program = Program(_total(rng))
    _small_change(program, rng)
    _fill(program, rng, program.left // 2)
    return program


PLANTS = {
    "capacity": capacity,
    "external-fragmentation": external_fragmentation,
    "stream-delayed-frees": stream_delayed_frees,
    "private-pool": private_pool,
    "non-pytorch": non_pytorch,
    "other-process": other_process,
    "fraction-cap": fraction_cap,
    "no-oom": no_oom,
}
"""What can be planted, by the verdict that is right for it."""


def plant(name: str, seed: int) -> Program:
    """A program that fails for one reason only."""
    return PLANTS[name](random.Random(f"{name} {seed}"))
