"""The simulator against 600 operations of real PyTorch in each of eight configurations, event by event."""

import json

import pytest

from memscope.device.limits import Limits
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.replay.caching.settings import AddressRule
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import BlockState
from memscope.units import GiB, MiB
from tests.oracles import SHARED, needs_shared

GOLDEN = SHARED / "data" / "golden"
NAMES = (
    "default",
    "expandable",
    "expandable_fraction",
    "expandable_roundup",
    "gc",
    "large_segment",
    "max_split",
    "roundup_list",
)
FAKE_DRIVER = AddressRule(
    base=0x7F0000000000, gap_bytes=2 * MiB, reservation_alignment_bytes=GiB, reservation_gap_bytes=GiB
)


class Driver:
    """Plays the operations of a golden file: streams' events are ready, or none is, as the file says."""

    def __init__(self, golden):
        conf = ",".join(filter(None, [golden["conf"], f"per_process_memory_fraction:{golden['fraction']}"]))
        self.allocator = CachingAllocator(
            CachingAllocatorConfig.parse(conf), limits=Limits(golden["device_total"]), address_rule=FAKE_DRIVER
        )
        self.streams = golden["streams"]
        self.address, self.stream, self.used_on, self.waiting = {}, {}, {}, []
        self.is_ready = True
        self.results = []

    def play(self, op):
        return getattr(self, op["op"])(op)

    def alloc(self, op):
        if self.is_ready:
            for address in self.waiting:
                self.allocator.complete_free(address)
            self.waiting.clear()
        self.stream[op["id"]] = op["stream"]
        try:
            self.address[op["id"]] = self.allocator.malloc(op["bytes"], self.streams[op["stream"]])
        except SimulatedOutOfMemoryError:
            self.waiting.clear()
            self.results.append(None)
            return
        self.results.append(self.address[op["id"]])

    def record_stream(self, op):
        if op["stream"] != self.stream[op["id"]]:
            self.used_on.setdefault(op["id"], set()).add(op["stream"])

    def free(self, op):
        waits = bool(self.used_on.pop(op["id"], None))
        self.allocator.free(self.address[op["id"]], waits=waits)
        if waits:
            self.waiting.append(self.address[op["id"]])

    def events_ready(self, op):
        self.is_ready = op["value"]

    def empty_cache(self, op):
        self.allocator.empty_cache()
        self.waiting.clear()


def without_order_between_streams(events):
    """Sort every run of completed frees: the order between streams' queues is a hash map's."""
    result, run = [], []
    for event in [*events, None]:
        if event is not None and event[0] == "free_completed":
            run.append(event)
            continue
        result += sorted(run)
        run = []
        if event is not None:
            result.append(event)
    return result


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_every_address_event_and_final_block_is_that_of_pytorch(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    driver = Driver(golden)
    events = []
    for op in golden["ops"]:
        driver.play(op)
        events += driver.allocator.drain_events()
    expected = [op["result"] for op in golden["ops"] if op["op"] == "alloc"]
    assert driver.results == [address if isinstance(address, int) else None for address in expected]
    got = [(event.action.name.lower(), event.address, event.size_bytes, event.stream) for event in events]
    recorded = [("oom", -1, *event[2:]) if event[0] == "oom" else tuple(event) for event in golden["events"]]
    assert without_order_between_streams(got) == without_order_between_streams(recorded)
    driver.allocator.check()
    check_final_state(driver.allocator, golden)


def check_final_state(allocator, golden):
    stats, recorded = allocator.stats, golden["stats"]
    assert stats.reserved_bytes == recorded["reserved_bytes.all.current"]
    assert stats.peak_reserved_bytes == recorded["reserved_bytes.all.peak"]
    assert stats.active_bytes == recorded["active_bytes.all.current"]
    assert stats.peak_active_bytes == recorded["active_bytes.all.peak"]
    assert stats.allocated_bytes == recorded["allocated_bytes.all.current"]
    assert stats.peak_allocated_bytes == recorded["allocated_bytes.all.peak"]
    assert stats.requested_bytes == recorded["requested_bytes.all.current"]
    assert stats.peak_requested_bytes == recorded["requested_bytes.all.peak"]
    assert stats.n_device_allocs == recorded["num_device_alloc"]
    assert stats.n_device_frees == recorded["num_device_free"]
    assert stats.n_retries == recorded["num_alloc_retries"]
    assert stats.n_ooms == recorded["num_ooms"]
    state = allocator.state()
    names = {BlockState.ACTIVE_ALLOCATED: "active_allocated", BlockState.INACTIVE: "inactive"}
    blocks = [
        (int(a), int(n), names.get(BlockState(s), "active_pending_free"))
        for a, n, s in zip(state.blocks.address, state.blocks.size_bytes, state.blocks.state, strict=True)
    ]
    segments = sorted(golden["segments"], key=lambda segment: segment["address"])
    assert state.segments.address.tolist() == [segment["address"] for segment in segments]
    assert state.segments.size_bytes.tolist() == [segment["total_size"] for segment in segments]
    assert [allocator.stream_handles[i] for i in state.segments.stream_id] == [s["stream"] for s in segments]
    assert blocks == [tuple(block[:3]) for segment in segments for block in segment["blocks"]]
