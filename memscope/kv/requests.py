"""Requests to a serving engine, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from memscope.errors import UsageError
from memscope.trace.tables import Int64Array, frozen_array


def _nothing() -> Int64Array:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class RequestTable:
    """Requests in order of arrival; every array is read-only int64.

    Attributes
    ----------
    arrival_us
        (n,): microseconds after the first request.
    prompt_tokens, output_tokens
        (n,): tokens that come in, and tokens that are generated; at least 1 each.
    chunk_start
        (n + 1,): where each request's prefix chunks begin in ``chunk_id``; empty where prefixes are not known.
    chunk_id
        Prefix chunks: two requests with the same id there begin with the same tokens up to that chunk's end. Dense
        from 0. A request's last chunk may be cut short by its length.
    chunk_tokens
        Tokens of a chunk; 0 where prefixes are not known.
    source
        Where they are from.
    n_samples
        (n,): sequences that each request asks for, which begin with its prompt and go on each its own way; one if not
        given. All of them have ``output_tokens`` tokens, as traces tell one length a request.
    """

    arrival_us: Int64Array
    prompt_tokens: Int64Array
    output_tokens: Int64Array
    source: str
    chunk_start: Int64Array = field(default_factory=_nothing)
    chunk_id: Int64Array = field(default_factory=_nothing)
    chunk_tokens: int = 0
    n_samples: Int64Array = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        n = len(self.arrival_us)
        if not len(self.n_samples):
            object.__setattr__(self, "n_samples", np.ones(n, np.int64))
        for name in ("arrival_us", "prompt_tokens", "output_tokens", "chunk_start", "chunk_id", "n_samples"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))
        assert len(self.prompt_tokens) == len(self.output_tokens) == len(self.n_samples) == n
        assert np.all(self.n_samples >= 1)
        assert np.all(np.diff(self.arrival_us) >= 0)
        assert np.all(self.prompt_tokens >= 1)
        assert np.all(self.output_tokens >= 1)
        if self.has_prefixes:
            assert len(self.chunk_start) == n + 1
            assert np.all(np.diff(self.chunk_start) * self.chunk_tokens >= self.prompt_tokens)

    def __len__(self) -> int:
        return len(self.arrival_us)

    @property
    def has_prefixes(self) -> bool:
        """Whether it is known which requests begin alike."""
        return self.chunk_tokens > 0

    @property
    def n_chunks(self) -> int:
        """Distinct prefix chunks."""
        return int(self.chunk_id.max(initial=-1)) + 1

    @property
    def cached_tokens(self) -> Int64Array:
        """Tokens that a sample keeps when it ends: all but the last one generated, which nothing is computed from."""
        return self.prompt_tokens + self.output_tokens - 1

    def first(self, n: int) -> RequestTable:
        """The first n requests."""
        if n >= len(self):
            return self
        end = int(self.chunk_start[n]) if self.has_prefixes else 0
        return replace(
            self,
            arrival_us=self.arrival_us[:n],
            prompt_tokens=self.prompt_tokens[:n],
            output_tokens=self.output_tokens[:n],
            chunk_start=self.chunk_start[: n + 1],
            chunk_id=self.chunk_id[:end],
            n_samples=self.n_samples[:n],
        )

    def faster(self, factor: float) -> RequestTable:
        """The same requests, arriving that many times as fast."""
        return replace(self, arrival_us=np.rint(self.arrival_us / factor).astype(np.int64))

    def with_samples(self, n_samples: int) -> RequestTable:
        """The same requests, each asking for so many samples.

        Raises
        ------
        UsageError
            If that is less than one.
        """
        if n_samples < 1:
            raise UsageError("a request asks for at least one sample")
        return replace(self, n_samples=np.full(len(self), n_samples, np.int64))


def in_order_of_arrival(
    arrival_us: Int64Array,
    prompt_tokens: Int64Array,
    output_tokens: Int64Array,
    source: str,
    n_samples: Int64Array | None = None,
) -> RequestTable:
    """A table without prefixes, sorted by arrival, the first at 0."""
    order = np.argsort(arrival_us, kind="stable")
    arrival = arrival_us[order]
    each = _nothing() if n_samples is None else n_samples[order]
    return RequestTable(arrival - arrival[0], prompt_tokens[order], output_tokens[order], source, n_samples=each)
