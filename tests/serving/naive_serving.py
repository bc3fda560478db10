"""The slow, obvious twin of the serving engine: blocks are objects in lists and dictionaries, sums are made anew.

It serves ``paged`` (only samples share blocks) and ``paged-prefix`` under the chunked scheduler, for layers that keep
all tokens, and shares no code with the compiled engine. Every sample has a block table, every block a count of its
entries.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass
class Group:
    """A request: a block table for each sample, one while all share the prompt, and how far they are."""

    number: int
    arrival: int
    prompt: int
    output: int
    keys: list[object]
    n_samples: int = 1
    tables: list[list[object]] = field(default_factory=lambda: [[]])
    computed: int = 0
    generated: int = 0
    was_started: bool = False

    @property
    def known(self) -> int:
        return self.prompt + self.generated

    def cost(self, n_tokens: int) -> int:
        """Tokens to compute for the next ``n_tokens`` of every sample."""
        once = max(0, min(self.prompt, self.computed + n_tokens) - self.computed)
        return once + self.n_samples * (n_tokens - once)

    def affordable(self, budget: int) -> int:
        """How many of the next tokens of every sample that many computed ones are enough for."""
        n = min(self.known - self.computed, budget)
        while self.cost(n) > budget:
            n -= 1
        return n


class NaiveServing:
    """One engine: ``n_blocks`` blocks of ``block_size`` tokens."""

    def __init__(self, requests, n_blocks, block_size, max_running, step_tokens, duration, shares=True):
        self.block_size, self.n_blocks = block_size, n_blocks
        self.max_running, self.step_tokens, self.duration = max_running, step_tokens, duration
        self.waiting = [Group(i, *request) for i, request in enumerate(requests)]
        self.shares = shares
        self.readers: dict[object, int] = {}
        self.idle: OrderedDict[object, None] = OrderedDict()
        self.running: list[Group] = []
        self.now = self.n_preempted = self.n_evicted = self.n_hit = self.n_queried = self.n_generated = 0
        self.n_done = self.n_recomputed = self.n_computed = self.peak_running = self.n_copied = 0
        self.byte_time = {"tokens": 0, "internal": 0, "external": 0, "unclaimed": 0, "saved": 0}
        self.fresh = itertools.count()

    def free(self) -> int:
        return self.n_blocks - len(self.readers)

    def new_block(self) -> object:
        """A block of a sequence's own, evicting a cached one that nobody reads if there is no other."""
        if len(self.readers) + len(self.idle) == self.n_blocks:
            self.idle.popitem(last=False)
            self.n_evicted += 1
        block = ("own", next(self.fresh))
        self.readers[block] = 1
        return block

    def n_new(self, group: Group, n_tokens: int) -> int:
        """Blocks to take until every sample has so many tokens."""
        size = self.block_size
        if group.computed > group.prompt:
            return sum(-(-n_tokens // size) - len(table) for table in group.tables)
        once = -(-min(n_tokens, group.prompt) // size) - len(group.tables[0])
        if n_tokens <= group.prompt:
            return once
        # The last block of the prompt, if it is cut, serves one sample; the others get copies of it.
        copies = (group.n_samples - 1) * (group.prompt % size > 0)
        return once + copies + group.n_samples * (-(-n_tokens // size) - -(-group.prompt // size))

    def write(self, table: list[object], first: int, last: int) -> None:
        """Put tokens at those places of a sequence: into blocks that no other sequence reads."""
        for i in range(first // self.block_size, -(-last // self.block_size)):
            if i == len(table):
                table.append(self.new_block())
            elif self.readers[table[i]] > 1:
                self.readers[table[i]] -= 1
                table[i] = self.new_block()
                self.n_copied += 1

    def grow(self, group: Group, n_tokens: int) -> bool:
        if self.n_new(group, n_tokens) > self.free():
            return False
        first, before = group.computed // self.block_size, group.computed
        if before < group.prompt:
            self.write(group.tables[0], before, min(n_tokens, group.prompt))
        if n_tokens > group.prompt:
            if len(group.tables) < group.n_samples:
                self.fork(group)
            for table in group.tables:
                self.write(table, max(before, group.prompt), n_tokens)
        group.computed = n_tokens
        if self.shares:
            for i in range(first, min(n_tokens, group.prompt) // self.block_size):
                self.publish(group, i)
        return True

    def fork(self, group: Group) -> None:
        """Give every sample a block table: they begin with the same blocks."""
        group.tables += [list(group.tables[0]) for _ in range(group.n_samples - 1)]
        for block in group.tables[0]:
            self.readers[block] += group.n_samples - 1

    def publish(self, group: Group, i: int) -> None:
        """A full block of a prompt becomes the shared one of its key."""
        key = ("shared", group.keys[i])
        for table in group.tables:
            if table[i] == key:
                continue
            self.leave(table[i])
            table[i] = key
            self.read(key)

    def read(self, key: object) -> None:
        self.idle.pop(key, None)
        self.readers[key] = self.readers.get(key, 0) + 1

    def leave(self, block: object) -> None:
        self.readers[block] -= 1
        if not self.readers[block]:
            del self.readers[block]
            if block[0] == "shared":
                self.idle[block] = None

    def release(self, group: Group) -> None:
        for table in group.tables:
            for block in reversed(table):
                self.leave(block)
        group.tables, group.computed = [[]], 0

    def admit(self, group: Group, budget: int) -> int | None:
        """Start a request: tokens of each sample that it computes; None if memory lacks."""
        cached = []
        if self.shares:
            for key in group.keys[: min(group.known - 1, group.prompt) // self.block_size]:
                if ("shared", key) not in self.readers and ("shared", key) not in self.idle:
                    break
                cached.append(("shared", key))
        n_idle = sum(block in self.idle for block in cached)
        n_all = self.n_new(group, group.known)
        group.computed = len(cached) * self.block_size
        n = group.affordable(budget)
        if n == 0 or n_all - len(cached) > self.free() - n_idle:
            group.computed = 0
            return None if n else 0
        for block in cached:
            self.read(block)
        group.tables = [cached]
        if not group.was_started:
            group.was_started = True
            self.n_hit += len(cached)
            self.n_queried += (group.prompt - 1) // self.block_size
        self.n_computed += group.cost(n)
        assert self.grow(group, group.computed + n)
        return n

    def step(self) -> None:
        budget, was_preempted, is_blocked, i = self.step_tokens, False, False, 0
        while i < len(self.running) and budget > 0:
            group = self.running[i]
            n = group.affordable(budget)
            if n == 0:
                i += 1
                continue
            cost = group.cost(n)
            while not self.grow(group, group.computed + n):
                victim = self.running.pop()
                self.put_back(victim)
                was_preempted = is_blocked = True
                if victim is group:
                    break
            else:
                budget -= cost
                self.n_computed += cost
                i += 1
                continue
            break
        while not was_preempted and budget > 0:
            if not self.waiting or self.waiting[0].arrival > self.now:
                break
            group = self.waiting[0]
            if sum(one.n_samples for one in self.running) + group.n_samples > self.max_running:
                break
            before = self.n_computed
            n = self.admit(group, budget)
            if not n:
                is_blocked = is_blocked or n is None
                break
            self.running.append(self.waiting.pop(0))
            budget -= self.n_computed - before
        self.peak_running = max(self.peak_running, len(self.running))
        self.check()
        self.pass_time(is_blocked, self.step_tokens - budget)
        for group in list(self.running):
            if group.computed == group.known:
                group.generated += 1
                self.n_generated += group.n_samples
                if group.generated == group.output:
                    self.running.remove(group)
                    self.release(group)
                    self.n_done += 1

    def put_back(self, victim: Group) -> None:
        """Preempt a request with all its samples: it has to be computed again."""
        n_lost = victim.computed
        self.release(victim)
        self.n_recomputed += victim.cost(n_lost)
        self.waiting.append(victim)
        self.waiting.sort(key=lambda one: one.number)
        self.n_preempted += 1

    def held(self) -> int:
        """Tokens in blocks that somebody reads, each counted once."""
        tokens: dict[object, int] = {}
        for group in self.running:
            for table in group.tables:
                for i, block in enumerate(table):
                    tokens[block] = min(self.block_size, group.computed - i * self.block_size)
        return sum(tokens.values())

    def pass_time(self, is_blocked: bool, n_tokens: int) -> None:
        n_logical = sum(group.computed * len(group.tables) for group in self.running)
        n_listed = sum(len(table) for group in self.running for table in group.tables)
        duration = self.duration(n_tokens, n_logical)
        taken, held = len(self.readers) * self.block_size, self.held()
        free = self.n_blocks * self.block_size - taken
        self.byte_time["tokens"] += held * duration
        self.byte_time["internal"] += (taken - held) * duration
        self.byte_time["external" if is_blocked else "unclaimed"] += free * duration
        self.byte_time["saved"] += (n_listed * self.block_size - taken) * duration
        self.now += duration

    def check(self) -> None:
        """No block leaks, none is read by nobody, none is idle and read, and there are never more than there are."""
        readers: dict[object, int] = {}
        for group in self.running:
            for table in group.tables:
                assert len(table) == -(-group.computed // self.block_size)
                for block in table:
                    readers[block] = readers.get(block, 0) + 1
            if group.computed > group.prompt:
                # What comes after the prompt's full blocks belongs to one sample alone.
                own = [block for table in group.tables for block in table[group.prompt // self.block_size :]]
                assert len(group.tables) == group.n_samples
                assert len(set(own)) == len(own)
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
