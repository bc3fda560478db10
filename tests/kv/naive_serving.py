"""The slow, obvious twin of the serving kernel: blocks are objects in lists and dictionaries, sums are made anew.

It serves ``paged`` (nothing shared) and ``paged-prefix`` under the chunked scheduler, for layers that keep all tokens,
and shares no code with the kernel.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass
class Sequence:
    """A request: its blocks in order, and how far it is."""

    number: int
    arrival: int
    prompt: int
    output: int
    keys: list[object]
    blocks: list[object] = field(default_factory=list)
    computed: int = 0
    generated: int = 0
    was_started: bool = False

    @property
    def known(self) -> int:
        return self.prompt + self.generated


class NaiveServing:
    """One engine: ``n_blocks`` blocks of ``block_size`` tokens."""

    def __init__(self, requests, n_blocks, block_size, max_running, step_tokens, duration, shares=True):
        self.block_size, self.n_blocks = block_size, n_blocks
        self.max_running, self.step_tokens, self.duration = max_running, step_tokens, duration
        self.waiting = [Sequence(i, *request) for i, request in enumerate(requests)]
        self.shares = shares
        self.readers: dict[object, int] = {}
        self.idle: OrderedDict[object, None] = OrderedDict()
        self.running: list[Sequence] = []
        self.now = self.n_preempted = self.n_evicted = self.n_hit = self.n_queried = self.n_generated = 0
        self.n_done = self.n_recomputed = self.peak_running = 0
        self.byte_time = {"tokens": 0, "internal": 0, "external": 0, "unclaimed": 0}
        self.fresh = itertools.count()

    def free(self) -> int:
        return self.n_blocks - len(self.readers)

    def take(self, n: int) -> list[object] | None:
        """n blocks of a sequence's own, evicting cached ones that nobody reads."""
        if n > self.free():
            return None
        while self.n_blocks - len(self.readers) - len(self.idle) < n:
            self.idle.popitem(last=False)
            self.n_evicted += 1
        blocks = [("own", next(self.fresh)) for _ in range(n)]
        for block in blocks:
            self.readers[block] = 1
        return blocks

    def grow(self, sequence: Sequence, n_tokens: int) -> bool:
        more = self.take(-(-n_tokens // self.block_size) - len(sequence.blocks))
        if more is None:
            return False
        sequence.blocks += more
        first = sequence.computed // self.block_size
        sequence.computed = n_tokens
        if self.shares:
            for i in range(first, min(n_tokens, sequence.prompt) // self.block_size):
                self.publish(sequence, i)
        return True

    def publish(self, sequence: Sequence, i: int) -> None:
        """A full block of a prompt becomes the shared one of its key."""
        key = ("shared", sequence.keys[i])
        if sequence.blocks[i] == key:
            return
        del self.readers[sequence.blocks[i]]
        sequence.blocks[i] = key
        self.read(key)

    def read(self, key: object) -> None:
        self.idle.pop(key, None)
        self.readers[key] = self.readers.get(key, 0) + 1

    def release(self, sequence: Sequence) -> None:
        for block in reversed(sequence.blocks):
            self.readers[block] -= 1
            if not self.readers[block]:
                del self.readers[block]
                if block[0] == "shared":
                    self.idle[block] = None
        sequence.blocks, sequence.computed = [], 0

    def admit(self, sequence: Sequence, budget: int) -> int:
        cached = []
        if self.shares:
            for key in sequence.keys[: min(sequence.known - 1, sequence.prompt) // self.block_size]:
                if ("shared", key) not in self.readers and ("shared", key) not in self.idle:
                    break
                cached.append(("shared", key))
        before = len(cached) * self.block_size
        n_idle = sum(block in self.idle for block in cached)
        if -(-sequence.known // self.block_size) - len(cached) > self.free() - n_idle:
            return 0
        for block in cached:
            self.read(block)
        sequence.blocks, sequence.computed = list(cached), before
        if not sequence.was_started:
            sequence.was_started = True
            self.n_hit += len(cached)
            self.n_queried += (sequence.prompt - 1) // self.block_size
        n = min(sequence.known - before, budget)
        assert self.grow(sequence, before + n)
        return n

    def step(self) -> None:
        budget, was_preempted, is_blocked, i = self.step_tokens, False, False, 0
        work = []
        while i < len(self.running) and budget > 0:
            sequence = self.running[i]
            n = min(sequence.known - sequence.computed, budget)
            while not self.grow(sequence, sequence.computed + n):
                victim = self.running.pop()
                self.n_recomputed += victim.computed
                self.release(victim)
                self.waiting.append(victim)
                self.waiting.sort(key=lambda one: one.number)
                self.n_preempted += 1
                was_preempted = is_blocked = True
                if victim is sequence:
                    break
            else:
                budget -= n
                work.append((sequence, n))
                i += 1
                continue
            break
        while not was_preempted and budget > 0 and len(self.running) < self.max_running:
            if not self.waiting or self.waiting[0].arrival > self.now:
                break
            n = self.admit(self.waiting[0], budget)
            if not n:
                is_blocked = True
                break
            self.running.append(self.waiting.pop(0))
            work.append((self.running[-1], n))
            budget -= n
        self.peak_running = max(self.peak_running, len(self.running))
        self.check()
        self.pass_time(is_blocked, sum(n for _, n in work))
        for sequence in list(self.running):
            if sequence.computed == sequence.known:
                sequence.generated += 1
                self.n_generated += 1
                if sequence.generated == sequence.output:
                    self.running.remove(sequence)
                    self.release(sequence)
                    self.n_done += 1

    def held(self) -> int:
        """Tokens in blocks that somebody reads, each counted once."""
        tokens: dict[object, int] = {}
        for sequence in self.running:
            for i, block in enumerate(sequence.blocks):
                tokens[block] = min(self.block_size, sequence.computed - i * self.block_size)
        return sum(tokens.values())

    def pass_time(self, is_blocked: bool, n_tokens: int) -> None:
        n_logical = sum(sequence.computed for sequence in self.running)
        duration = self.duration(n_tokens, n_logical)
        taken, held = len(self.readers) * self.block_size, self.held()
        free = self.n_blocks * self.block_size - taken
        self.byte_time["tokens"] += held * duration
        self.byte_time["internal"] += (taken - held) * duration
        self.byte_time["external" if is_blocked else "unclaimed"] += free * duration
        self.now += duration

    def check(self) -> None:
        """No block leaks, none is read by nobody, none is idle and read, and there are never more than there are."""
        readers: dict[object, int] = {}
        for sequence in self.running:
            assert len(sequence.blocks) == -(-sequence.computed // self.block_size)
            for block in sequence.blocks:
                readers[block] = readers.get(block, 0) + 1
        assert readers == self.readers
        assert not self.idle.keys() & readers.keys()
        assert len(readers) + len(self.idle) <= self.n_blocks

    def run(self) -> NaiveServing:
        while self.waiting or self.running:
            if not self.running and self.waiting[0].arrival > self.now:
                idle = self.waiting[0].arrival - self.now
                self.byte_time["unclaimed"] += idle * self.n_blocks * self.block_size
                self.now += idle
            self.step()
        assert not self.readers
        return self
