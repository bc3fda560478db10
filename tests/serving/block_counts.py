"""A twin of prefix caching that is fast enough for whole traces: plain Python that counts blocks.

Unlike ``naive_serving`` it keeps no block tables, only how many requests read a cached block, and in an ``OrderedDict``
which blocks nobody reads, the next to be evicted first. A step without a request that starts, ends, or needs another
block takes a few additions a request. It serves ``paged-prefix`` in whole blocks, under the continuous scheduler of
one sample a request, and shares no code with the compiled engine.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Request:
    """A request; ``n_shared`` of its ``n_blocks`` blocks are cached ones."""

    number: int
    arrival: int
    prompt: int
    output: int
    keys: list[int]
    generated: int = 0
    held: int = 0
    n_blocks: int = 0
    n_shared: int = 0
    was_started: bool = False


class BlockCounts:
    """One engine: ``n_blocks`` blocks of ``size`` tokens; a prompt is computed in one step."""

    def __init__(
        self,
        requests: list[tuple[int, int, int, list[int]]],
        n_blocks: int,
        size: int,
        max_running: int,
        step_tokens: int,
        duration: Callable[[int], int],
    ) -> None:
        self.size, self.n_blocks, self.max_running, self.step_tokens = size, n_blocks, max_running, step_tokens
        self.duration = duration
        self.coming = deque(Request(i, *row) for i, row in enumerate(requests))
        self.put_back: list[tuple[int, Request]] = []
        self.running: list[Request] = []
        self.readers: dict[int, int] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()
        self.n_own = self.now = 0
        self.n_evicted = self.n_hit = self.n_queried = self.n_preempted = self.n_recomputed = self.n_steps = 0

    def take(self, n: int) -> bool:
        """Take so many blocks for one request alone, evicting cached ones that nobody reads."""
        n_free = self.n_blocks - self.n_own - len(self.readers)
        if n > n_free:
            return False
        for _ in range(n - (n_free - len(self.idle))):
            self.idle.popitem(last=False)
            self.n_evicted += 1
        self.n_own += n
        return True

    def read(self, key: int) -> None:
        self.idle.pop(key, None)
        self.readers[key] = self.readers.get(key, 0) + 1

    def release(self, request: Request) -> None:
        self.n_own -= request.n_blocks - request.n_shared
        for key in reversed(request.keys[: request.n_shared]):
            if self.readers[key] > 1:
                self.readers[key] -= 1
            else:
                del self.readers[key]
                self.idle[key] = None
        request.held = request.n_blocks = request.n_shared = 0

    def start(self, request: Request, budget: int) -> int:
        """Take a request's memory: tokens that it computes, 0 if it has to wait."""
        known = request.prompt + request.generated
        n_cached = n_idle = 0
        for key in request.keys[: min(known - 1, request.prompt) // self.size]:
            if key not in self.readers:
                if key not in self.idle:
                    break
                n_idle += 1
            n_cached += 1
        n_tokens = known - n_cached * self.size
        n_needed = -(-known // self.size) - n_cached
        if n_tokens > budget or n_needed > self.n_blocks - self.n_own - len(self.readers) - n_idle:
            return 0
        for key in request.keys[:n_cached]:
            self.read(key)
        assert self.take(n_needed)
        if not request.was_started:
            request.was_started = True
            self.n_hit += n_cached
            self.n_queried += (request.prompt - 1) // self.size
        request.held, request.n_blocks, request.n_shared = known, n_needed + n_cached, request.prompt // self.size
        # Full blocks of the prompt are everybody's; one that another request keeps already is kept once.
        self.n_own -= request.n_shared - n_cached
        for key in request.keys[n_cached : request.n_shared]:
            self.read(key)
        return n_tokens

    def preempt(self) -> Request:
        victim = self.running.pop()
        self.n_recomputed += victim.held
        self.n_preempted += 1
        self.release(victim)
        heapq.heappush(self.put_back, (victim.number, victim))
        return victim

    def grow_all(self) -> bool:
        """One more token for every running request; whether some were put back."""
        i, was_preempted = 0, False
        while i < len(self.running):
            request = self.running[i]
            if request.held == request.n_blocks * self.size:
                is_back = False
                while not is_back and not self.take(1):
                    was_preempted = True
                    is_back = self.preempt() is request
                if is_back:
                    break
                request.n_blocks += 1
            request.held += 1
            i += 1
        return was_preempted

    def step(self) -> None:
        was_preempted = self.grow_all()
        budget = self.step_tokens - len(self.running)
        while not was_preempted and budget > 0 and len(self.running) < self.max_running:
            if self.put_back:
                request = self.put_back[0][1]
            elif self.coming and self.coming[0].arrival <= self.now:
                request = self.coming[0]
            else:
                break
            n_tokens = self.start(request, budget)
            if not n_tokens:
                break
            if self.put_back:
                heapq.heappop(self.put_back)
            else:
                self.coming.popleft()
            self.running.append(request)
            budget -= n_tokens
        self.n_steps += 1
        self.now += self.duration(sum(request.held for request in self.running))
        done = []
        for request in self.running:
            request.generated += 1
            if request.generated == request.output:
                done.append(request)
        for request in done:
            self.running.remove(request)
            self.release(request)

    def run(self) -> BlockCounts:
        while self.coming or self.put_back or self.running:
            if not self.running and not self.put_back:
                self.now = max(self.now, self.coming[0].arrival)
            self.step()
        assert self.n_own == len(self.readers) == 0
        return self
