"""The slow twin of padded static batches: every batch is written down as a rectangle of sequences and steps.

Each sequence has a contiguous region of the longest length. It shares no code with the compiled engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NaiveBatches:
    """``n_regions`` of ``longest`` tokens, in blocks of ``block`` tokens, of a memory of ``capacity`` tokens."""

    requests: list[tuple[int, int, int, int]]
    longest: int
    block: int
    capacity: int
    max_rows: int
    step_tokens: int
    duration: object
    now: int = 0
    n_pads: int = 0
    n_batches: int = 0
    byte_time: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("tokens", "reservation", "internal", "external", "unclaimed"), 0)
    )

    def run(self) -> NaiveBatches:
        waiting = list(self.requests)
        while waiting:
            if waiting[0][0] > self.now:
                self.byte_time["unclaimed"] += self.capacity * (waiting[0][0] - self.now)
                self.now = waiting[0][0]
            batch, is_blocked = self.choose([one for one in waiting if one[0] <= self.now])
            waiting = waiting[len(batch) :]
            self.serve(batch, is_blocked)
        return self

    def choose(self, arrived: list[tuple[int, int, int, int]]) -> tuple[list[tuple[int, int, int, int]], bool]:
        """The longest beginning of the queue that is a batch; whether it is memory that keeps the next one out."""
        for n in range(1, len(arrived) + 1):
            batch = arrived[:n]
            rows = sum(one[3] for one in batch)
            prompt, more = max(one[1] for one in batch), max(one[2] for one in batch) - 1
            is_allowed = (
                rows <= self.max_rows and rows * prompt <= self.step_tokens and prompt + more <= self.longest
            ) or n == 1
            if not is_allowed:
                return arrived[: n - 1], False
            if rows > self.capacity // self.block and n > 1:
                return arrived[: n - 1], True
        return arrived, False

    def serve(self, batch: list[tuple[int, int, int, int]], is_blocked: bool) -> None:
        """All sequences have the length of the longest prompt, and grow by one in each step, until the last is done."""
        self.n_batches += 1
        width = max(prompt for _, prompt, _, _ in batch)
        rows = [(prompt, output) for _, prompt, output, n in batch for _ in range(n)]
        self.n_pads += sum(width - prompt for prompt, _ in rows)
        for step in range(max(output for _, output in rows)):
            parts = dict.fromkeys(self.byte_time, 0)
            for prompt, output in rows:
                is_done = step >= output
                held = 0 if is_done else prompt + step
                future = 0 if is_done else output - 1 - step
                self.n_pads += is_done
                parts["tokens"] += held
                parts["reservation"] += future
                parts["internal"] += self.longest - held - future
                parts["external"] += self.block - self.longest
            free = self.capacity - self.block * len(rows)
            parts["external" if is_blocked else "unclaimed"] += free
            took = self.duration(len(rows) * (width + step))
            for name, part in parts.items():
                self.byte_time[name] += part * took
            self.now += took
