"""Requests to a serving engine, as columns: read from a file, or made from distributions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
import numpy.typing as npt

from memscope.errors import UnknownNameError, UsageError
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
        """The same requests, arriving that many times as fast.

        Raises
        ------
        UsageError
            If they would then arrive later than can be counted.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return replace(self, arrival_us=_whole_us(self.arrival_us / factor))

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


MAX_ARRIVAL_US = 10**15
"""No request comes later: 32 years after the first."""
CHUNK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Lognormal lengths: their mean before they are cut to a range, and the spread of their logarithm."""

    mean: float
    sigma: float
    least: int = 1
    most: int = 1 << 20

    def draw(self, rng: np.random.Generator, n: int) -> Int64Array:
        """Draw n lengths: int64 (n,)."""
        location = np.log(self.mean) - self.sigma**2 / 2
        return np.clip(np.rint(rng.lognormal(location, self.sigma, n)), self.least, self.most).astype(np.int64)


LENGTHS: dict[str, tuple[LengthDistribution, LengthDistribution]] = {
    "sharegpt": (LengthDistribution(175.1, 1.2, 4, 1024), LengthDistribution(389.6, 1.0, 4, 1024)),
    "alpaca": (LengthDistribution(19.31, 0.6, 4, 1024), LengthDistribution(58.45, 0.9, 4, 1024)),
    "long-prompt": (LengthDistribution(8000.0, 0.8, 256, 120_000), LengthDistribution(200.0, 0.8, 4, 4096)),
}
"""Tokens in and out. Cut to their range, the first two have the means of the PagedAttention paper (arXiv 2309.06180,
figure 11): 161.31 and 337.99 for ShareGPT, 19.31 and 58.45 for Alpaca. The spreads are chosen to resemble its
histograms, and ``long-prompt`` is made up to stand for documents."""


@dataclass(frozen=True, slots=True)
class GeneratorOptions:
    """What to make.

    Attributes
    ----------
    n_requests, rate_per_s
        How many, and how many arrive in a second on average.
    lengths
        A name of :data:`LENGTHS`.
    burstiness
        Squared coefficient of variation of the gaps between arrivals: 1 is Poisson, more is bursty.
    shared_prefix_frac
        Share of requests that begin with one of ``n_prefixes`` common prefixes.
    prefix_tokens
        Length of a common prefix; it comes on top of the prompt that was drawn.
    n_samples
        Sequences that each request asks for.
    """

    n_requests: int = 1000
    rate_per_s: float = 1.0
    lengths: str = "sharegpt"
    burstiness: float = 1.0
    shared_prefix_frac: float = 0.0
    n_prefixes: int = 4
    prefix_tokens: int = 512
    n_samples: int = 1


def generate_requests(options: GeneratorOptions, seed: int = 0) -> RequestTable:
    """Make requests.

    Raises
    ------
    UsageError
        If an option is out of range.
    """
    _check(options)
    rng = np.random.default_rng(seed)
    n = options.n_requests
    shape = 1 / options.burstiness
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        gaps = rng.gamma(shape, np.float64(1) / (options.rate_per_s * shape), n)  # without end where the rate is near 0
        arrival = _whole_us(np.cumsum(gaps) * 1e6)
    prompts, outputs = LENGTHS[options.lengths]
    prompt, output = prompts.draw(rng, n), outputs.draw(rng, n)
    is_shared = rng.random(n) < options.shared_prefix_frac
    prefix = np.where(is_shared, rng.integers(0, options.n_prefixes, n), -1)
    prompt = prompt + is_shared * options.prefix_tokens
    start, ids = _chunks(prompt, prefix, options)
    what = f"a generator ({options.lengths} lengths, seed {seed})"
    table = RequestTable(arrival - arrival[0], prompt, output, what, start, ids, CHUNK_TOKENS)
    return table.with_samples(options.n_samples)


def _whole_us(times_us: npt.NDArray[np.float64]) -> Int64Array:
    """Times as whole microseconds.

    Raises
    ------
    UsageError
        If one is too late to be counted, or no time at all.
    """
    if not np.all(np.abs(times_us) <= MAX_ARRIVAL_US):
        years = MAX_ARRIVAL_US / (1e6 * 86_400 * 365.25)
        raise UsageError(f"the requests would not arrive within {years:,.0f} years: let them come faster")
    return np.rint(times_us).astype(np.int64)


def _check(options: GeneratorOptions) -> None:
    if options.lengths not in LENGTHS:
        raise UnknownNameError(f"{options.lengths!r} are not known lengths", options.lengths, LENGTHS)
    if options.n_requests < 1 or options.n_prefixes < 1 or options.prefix_tokens < 1:
        raise UsageError("numbers of requests, prefixes and prefix tokens start at 1")
    is_spread = options.burstiness > 0 and isfinite(1 / options.burstiness)
    if not (options.rate_per_s > 0 and is_spread and 0 <= options.shared_prefix_frac <= 1):
        raise UsageError("a rate and a burstiness must be above 0, a shared share between 0 and 1")


def _chunks(
    prompt: Int64Array, prefix: npt.NDArray[np.int64], options: GeneratorOptions
) -> tuple[Int64Array, Int64Array]:
    """Chunk ids: the common ones first, every other chunk of every request its own."""
    n_common = options.prefix_tokens // CHUNK_TOKENS
    n_chunks = -(-prompt // CHUNK_TOKENS)
    start = np.concatenate(([0], np.cumsum(n_chunks)))
    request = np.repeat(np.arange(len(prompt)), n_chunks)
    place = np.arange(start[-1]) - start[request]
    is_common = (prefix[request] >= 0) & (place < n_common)
    ids = np.where(is_common, prefix[request] * n_common + place, 0)
    ids[~is_common] = options.n_prefixes * n_common + np.arange(np.count_nonzero(~is_common))
    _, dense = np.unique(ids, return_inverse=True)
    return start.astype(np.int64), dense.astype(np.int64)
