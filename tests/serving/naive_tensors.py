"""The slow twin of caches that are tensors: every tensor is a call of the simulated caching allocator, written out.

It serves ``concat`` under the chunked scheduler, and shares no code with the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from memscope.device.limits import Limits
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError


@dataclass
class Group:
    """A request: the addresses of its tensors, how many of them have the new length, and how far it is."""

    number: int
    arrival: int
    prompt: int
    output: int
    n_samples: int
    tensors: list[int] = field(default_factory=list)
    n_grown: int = 0
    computed: int = 0
    generated: int = 0

    @property
    def known(self) -> int:
        return self.prompt + self.generated


class NaiveTensors:
    """One engine; ``shapes`` are the bytes of a token in each tensor, and the tokens it looks back over or None."""

    def __init__(self, requests, shapes, capacity_bytes, unit_bytes, max_running, step_tokens, duration):
        self.shapes, self.unit = shapes, unit_bytes
        self.capacity = capacity_bytes // unit_bytes
        self.allocator = CachingAllocator(limits=Limits(self.capacity * unit_bytes))
        self.max_running, self.step_tokens, self.duration = max_running, step_tokens, duration
        self.waiting = [Group(i, *request) for i, request in enumerate(requests)]
        self.running: list[Group] = []
        self.taken = self.now = self.n_preempted = self.n_refused = self.n_done = 0
        self.is_full = self.is_blocked = False
        self.steps: list[tuple[int, int, int, int]] = []

    def units(self, tokens: int) -> int:
        """Units of so many tokens of one sample."""
        kept = (size * min(tokens, window or tokens) for size, window in self.shapes)
        return sum(kept) // self.unit

    def grow(self, group: Group, n_tokens: int) -> bool:
        """Make every tensor longer; where memory runs out, the next call goes on from there."""
        group.tensors = group.tensors or [0] * len(self.shapes)
        for i in range(group.n_grown, len(self.shapes)):
            size, window = self.shapes[i]
            kept = group.computed if window is None else min(group.computed, window - 1)
            try:
                longer = self.allocator.malloc(group.n_samples * (kept + n_tokens - group.computed) * size)
            except SimulatedOutOfMemoryError:
                group.n_grown = i
                return False
            if group.tensors[i]:
                self.allocator.free(group.tensors[i])
            group.tensors[i] = longer
        group.n_grown, group.computed = 0, n_tokens
        self.taken = self.allocator.stats.active_bytes // self.unit
        return True

    def drop(self, group: Group) -> None:
        for address in filter(None, group.tensors):
            self.allocator.free(address)
        group.tensors, group.n_grown, group.computed = [], 0, 0
        self.taken = self.allocator.stats.active_bytes // self.unit

    def start(self, group: Group, n: int) -> bool:
        """Whether there is memory for all that is known of a request, beside a copy of the largest tensor there is."""
        longest = max((one.n_samples * one.computed for one in self.running), default=0)
        copy = longest * max(size for size, _ in self.shapes) // self.unit
        if group.n_samples * self.units(group.known) + copy > self.capacity - self.taken:
            return False
        if not self.grow(group, n):
            self.drop(group)
            return False
        return True

    def put_back(self) -> Group:
        victim = self.running.pop()
        self.drop(victim)
        self.waiting.append(victim)
        self.waiting.sort(key=lambda one: one.number)
        self.n_preempted += 1
        self.is_full = self.is_blocked = True
        return victim

    def run_running(self, budget: int) -> int:
        """Let those that run compute; what is left of the step's tokens."""
        for group in list(self.running):
            if group not in self.running or not budget:
                break
            n = min(group.known - group.computed, budget // group.n_samples)
            if not n:
                continue
            while not self.grow(group, group.computed + n):
                if self.put_back() is group:
                    return budget
            budget -= group.n_samples * n
        return budget

    def start_waiting(self, budget: int) -> int:
        while budget and self.waiting and self.waiting[0].arrival <= self.now:
            group = self.waiting[0]
            if sum(one.n_samples for one in self.running) + group.n_samples > self.max_running:
                break
            n = min(group.known, budget // group.n_samples)
            if not n:
                break
            if not self.start(group, n):
                self.is_blocked = True
                break
            self.running.append(self.waiting.pop(0))
            budget -= group.n_samples * n
        return budget

    def step(self) -> None:
        n_preempted, self.is_blocked = self.n_preempted, False
        budget = self.run_running(self.step_tokens)
        if not self.running:
            self.is_full = False
        if self.n_preempted == n_preempted and not self.is_full:
            budget = self.start_waiting(budget)
        if budget == self.step_tokens:
            # What runs out of memory with no other one running is given up.
            self.waiting.pop(0)
            self.n_refused += 1
            return
        held = sum(one.n_samples * self.units(one.computed) for one in self.running)
        lost = self.capacity - self.taken if self.is_blocked else 0
        taken, self.now = self.taken, self.now + self.duration(held * self.unit)
        self.steps.append((self.now, held * self.unit, taken * self.unit, lost * self.unit))
        self.finish()

    def finish(self) -> None:
        done = []
        for group in self.running:
            if group.computed == group.known:
                group.generated += 1
            if group.generated == group.output:
                done.append(group)
        for group in done:
            self.running.remove(group)
            self.n_done += 1
            self.is_full = False
        for group in done:
            self.drop(group)

    def run(self) -> NaiveTensors:
        while self.running or self.waiting:
            if not self.running:
                self.now = max(self.now, self.waiting[0].arrival)
            self.step()
        return self
