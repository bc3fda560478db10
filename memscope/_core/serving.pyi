"""A serving engine's steps under one way to manage key/value memory."""

import enum
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Status(enum.Enum):
    """Why a simulation stopped."""

    DONE = 0

    PAUSED = 1

    STUCK = 2
    """A step had work and did none of it."""

class Scheduler:
    """The limits of an engine's steps; memory in units."""

    def __init__(self, *, max_running: int, step_tokens: int, is_chunked: bool, is_static: bool, is_padded: bool, longest: int, swap_units: int) -> None: ...

class StepCosts:
    """What a step costs; times in microseconds."""

    def __init__(self, *, flops_per_us: float, bytes_per_us: float, flops_per_token: float, flops_per_pair: float, weight_bytes: float, overhead_us: float, swap_bytes_per_us: float, unit_bytes: float) -> None: ...

class Counts:
    @property
    def now_us(self) -> int: ...

    @property
    def busy_us(self) -> int: ...

    @property
    def n_done(self) -> int: ...

    @property
    def n_refused(self) -> int: ...

    @property
    def n_steps(self) -> int: ...

    @property
    def n_preemptions(self) -> int: ...

    @property
    def n_swaps(self) -> int: ...

    @property
    def n_recomputed_tokens(self) -> int: ...

    @property
    def n_generated_tokens(self) -> int: ...

    @property
    def n_computed_tokens(self) -> int: ...

    @property
    def n_copies(self) -> int: ...

    @property
    def n_pad_tokens(self) -> int: ...

    @property
    def peak_running(self) -> int: ...

    @property
    def peak_taken(self) -> int: ...

    @property
    def peak_tokens(self) -> int: ...

class PrefixCounts:
    @property
    def n_evictions(self) -> int: ...

    @property
    def n_queried_blocks(self) -> int: ...

    @property
    def n_hit_blocks(self) -> int: ...

class TensorCounts:
    @property
    def peak_reserved_bytes(self) -> int: ...

    @property
    def n_retries(self) -> int: ...

class Setting:
    """Requests, an engine, and how much memory its sequences take."""

    def __init__(self, *, arrival_us: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], prompt_tokens: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], output_tokens: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], n_samples: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], is_refused: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C', device='cpu', writable=False)], taken: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], held: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], capacity: int, scheduler: Scheduler, costs: StepCosts) -> None:
        """
        ``arrival_us``, ``prompt_tokens``, ``output_tokens``, ``n_samples``: int64 (n,), in order of arrival;
        ``is_refused``: bool (n,). ``taken``, ``held``: int64 (longest + 1,), units that a sequence of so many
        tokens takes, and that its tokens are. ``capacity``: units.
        """

    def share_samples(self, *, window_tokens: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], window_units: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], private_tokens: int) -> None:
        """
        Let the samples of a request share its prompt, in blocks of so many tokens. int64 (groups,): tokens that
        a group of layers looks back over (0: all), and units of a token in it.
        """

class Engine:
    """A simulation under way."""

    def run(self, n_steps: int) -> Status:
        """Run steps until every request is done, or so many were made."""

    @property
    def counts(self) -> Counts: ...

    @property
    def prefix_counts(self) -> PrefixCounts: ...

    @property
    def tensor_counts(self) -> TensorCounts: ...

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs, waits or holds memory."""

    def memory_over_time(self) -> tuple:
        """
        Unit·µs that held tokens, were reserved, internal, external and unclaimed; exact.
        """

    def steps(self) -> dict:
        """
        The columns of Step by their names, int64 (n_steps,): times in microseconds, memory in units.
        """

    def is_refused(self) -> Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C')]:
        """uint8 (n,): 1 where a request was refused."""

    def first_token_us(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """int64 (n,): when its first token came out, −1 if none did."""

class TensorPlaces:
    """The allocator of ``tensors`` alone, with places for them."""

    def __init__(self, *, capacity: int, granularity: int, n_places: int) -> None:
        """Bytes, and what all sizes that will be asked for are multiples of."""

    def replace(self, start: int, end: int, n_bytes: int) -> int:
        """
        Put new tensors of one size into places, one after the other, each before the old one is freed. How many
        there was memory for.
        """

    def free(self, start: int, end: int) -> None:
        """Free the tensors of these places that hold one."""

    def addresses(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """int64 (n_places,): bytes, −1 where there is no tensor."""

    @property
    def active_bytes(self) -> int: ...

    @property
    def peak_reserved_bytes(self) -> int: ...

    @property
    def n_retries(self) -> int: ...

def on_demand(setting: Setting) -> Engine:
    """Memory is taken as a function of the tokens held: blocks, or pages."""

def regions(setting: Setting, *, region_units: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], granule_units: int, n_largest: int) -> Engine:
    """
    Each sequence has a region, int64 (n,) units by request, placed by binary buddies of granules;
    ``n_largest`` of the longest sequence fit at once.
    """

def prefixes(setting: Setting, *, block_tokens: int, chunk_start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], chunk_id: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], n_chunks: int, chunk_tokens: int) -> Engine:
    """
    Full blocks of prompts are shared. A unit is a token. The chunks of request i are
    ``chunk_id[chunk_start[i]:chunk_start[i + 1]]``, int64, of so many distinct ones; ``chunk_tokens`` is 0
    where they are not known.
    """

def tensors(setting: Setting, *, token_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], window: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], unit_bytes: int) -> Engine:
    """
    Each request has tensors in the caching allocator: int64 (tensors,), bytes of a token in each, and the
    tokens that it looks back over (0: all).
    """
