"""Every modelled allocator, under any sequence of calls, keeps the invariants."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models.registry import MODELS
from memscope.trace.schema import BlockState
from memscope.units import KiB, MiB
from tests.properties import examples
from tests.replay.models.modelled_allocator import ModelledAllocator

SIZES = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 4 * MiB),
    st.integers(1 * MiB, 70 * MiB),
    st.sampled_from([512, 256 * KiB, MiB, 2 * MiB, 2 * MiB + 1, 20 * MiB]),
)


class ModelMachine(RuleBasedStateMachine):
    """Calls of one model, beside the list of what is live."""

    model = MODELS[0]

    @initialize(total=st.sampled_from([None, 64 * MiB, 512 * MiB, 4096 * MiB]))
    def start(self, total):
        self.total = total
        self.allocator = ModelledAllocator(self.model, limits=Limits(total))
        self.live: dict[int, int] = {}
        self.waiting: dict[int, int] = {}
        self.n_waits = 0

    @rule(size=SIZES, stream=st.sampled_from([0, 7]))
    def malloc(self, size, stream):
        n_retries = self.allocator.stats.n_retries
        try:
            address = self.allocator.malloc(size, stream)
        except SimulatedOutOfMemoryError as error:
            assert self.total is not None
            assert error.free_bytes <= self.total  # noqa: PT017
            # An allocator that is out of memory has waited for every stream.
            self.waiting.clear()
            return
        if self.allocator.stats.n_retries > n_retries:
            self.waiting.clear()
        if self.allocator.n_waits != self.n_waits:
            # It has waited for every stream on the way, so that nothing is pending any more.
            self.n_waits = self.allocator.n_waits
            self.waiting.clear()
        for other, other_size in [*self.live.items(), *self.waiting.items()]:
            assert address + size <= other or other + other_size <= address, "two live allocations overlap"
        self.live[address] = size

    @precondition(lambda self: self.live)
    @rule(data=st.data(), waits=st.booleans())
    def free(self, data, waits):
        address = data.draw(st.sampled_from(sorted(self.live)))
        size = self.live.pop(address)
        self.allocator.free(address, waits=waits)
        if waits:
            self.waiting[address] = size

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def complete(self, data):
        address = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[address]
        self.allocator.complete_free(address)

    @rule()
    def empty_cache(self):
        self.allocator.empty_cache()
        self.waiting.clear()

    @rule()
    def free_twice(self):
        with pytest.raises(UsageError):
            self.allocator.free(1)

    @invariant()
    def blocks_tile_and_counters_agree(self):
        self.allocator.check()
        state, stats = self.allocator.state(), self.allocator.stats
        if self.model.merges_neighbours and not self.model.mixes_pools:
            state.check()
        assert state.reserved_bytes == stats.reserved_bytes
        assert state.active_bytes == stats.active_bytes
        assert state.allocated_bytes == stats.allocated_bytes
        active = state.blocks.state != BlockState.INACTIVE
        assert state.blocks.requested_bytes[active].sum() == stats.requested_bytes
        assert stats.requested_bytes <= stats.active_bytes <= stats.reserved_bytes
        assert sum(self.live.values()) <= stats.allocated_bytes
        if self.total is not None:
            assert stats.peak_reserved_bytes <= self.total

    def teardown(self):
        if not hasattr(self, "allocator"):
            return
        for address in self.live:
            self.allocator.free(address)
        self.allocator.empty_cache()
        stats = self.allocator.stats
        assert (stats.allocated_bytes, stats.active_bytes, stats.requested_bytes) == (0, 0, 0)
        assert stats.reserved_bytes == 0, "something was kept after everything was freed and emptied"


@pytest.mark.hypothesis
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_invariants_hold_under_any_calls(model):
    machine = type(f"Machine_{model.name}", (ModelMachine,), {"model": model})
    run_state_machine_as_test(machine, settings=examples(25, stateful_step_count=40))
