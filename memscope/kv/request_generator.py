"""Requests made from distributions, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memscope.errors import UsageError
from memscope.kv.requests import RequestTable
from memscope.trace.tables import Int64Array

CHUNK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lognormal lengths: their mean before they are cut to a range, and the spread of their logarithm."""

    mean: float
    sigma: float
    least: int = 1
    most: int = 1 << 20

    def draw(self, rng: np.random.Generator, n: int) -> Int64Array:
        """Draw n lengths: int64 (n,)."""
        location = np.log(self.mean) - self.sigma**2 / 2
        return np.clip(np.rint(rng.lognormal(location, self.sigma, n)), self.least, self.most).astype(np.int64)


LENGTHS: dict[str, tuple[Lengths, Lengths]] = {
    "sharegpt": (Lengths(175.1, 1.2, 4, 1024), Lengths(389.6, 1.0, 4, 1024)),
    "alpaca": (Lengths(19.31, 0.6, 4, 1024), Lengths(58.45, 0.9, 4, 1024)),
    "long-prompt": (Lengths(8000.0, 0.8, 256, 120_000), Lengths(200.0, 0.8, 4, 4096)),
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
    gaps = rng.gamma(shape, 1 / (options.rate_per_s * shape), n)
    arrival = np.rint(np.cumsum(gaps) * 1e6).astype(np.int64)
    prompts, outputs = LENGTHS[options.lengths]
    prompt, output = prompts.draw(rng, n), outputs.draw(rng, n)
    is_shared = rng.random(n) < options.shared_prefix_frac
    prefix = np.where(is_shared, rng.integers(0, options.n_prefixes, n), -1)
    prompt = prompt + is_shared * options.prefix_tokens
    start, ids = _chunks(prompt, prefix, options)
    what = f"a generator ({options.lengths} lengths, seed {seed})"
    table = RequestTable(arrival - arrival[0], prompt, output, what, start, ids, CHUNK_TOKENS)
    return table.with_samples(options.n_samples)


def _check(options: GeneratorOptions) -> None:
    if options.lengths not in LENGTHS:
        raise UsageError(f"{options.lengths!r} are not known lengths: choose one of {', '.join(LENGTHS)}")
    if options.n_requests < 1 or options.n_prefixes < 1 or options.prefix_tokens < 1:
        raise UsageError("numbers of requests, prefixes and prefix tokens start at 1")
    if not (options.rate_per_s > 0 and options.burstiness > 0 and 0 <= options.shared_prefix_frac <= 1):
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
