"""The arrays of a serving replay: what the key/value kernels share.

Memory is counted in units, the caller's choice: the bytes of one token in the smallest layer, or of one token in all of
them. Times are whole microseconds. Requests are numbered in order of arrival.
"""

from __future__ import annotations

from typing import Any, NamedTuple

NONE = -1

KIND_GROWING = 0
"""Memory is a function of the tokens held (paged, virtual)."""
KIND_CONTIGUOUS = 1
"""One region for each request, taken when it starts, placed by a buddy allocator."""
KIND_PREFIX = 2
"""Full blocks of prompts are shared by their key; the rest of a sequence is its own."""

KIND_TENSORS = 3
"""Every layer's keys and values are a tensor, in PyTorch's caching allocator."""

P_KIND = 0
P_CAPACITY = 1
"""Units in all."""
P_MAX_RUNNING = 2
P_STEP_TOKENS = 3
"""The most tokens that a step computes."""
P_IS_CHUNKED = 4
"""Whether a prompt may be computed over several steps."""
P_IS_STATIC = 5
"""Whether a batch runs to its end before the next one starts."""
P_NODE_TOKENS = 6
"""Tokens of a shared block."""
P_PRIVATE_TOKENS = 7
"""Tokens by which a sequence's own part of its memory grows, where samples or prefixes are shared."""
P_CHUNK_TOKENS = 8
P_GRANULE = 9
"""Units of the buddy allocator's smallest block."""
P_SWAP_CAPACITY = 10
"""Units of host memory for preempted requests; 0: recompute them."""
P_TENSOR_UNITS = 11
"""Units of one token in a request's largest tensor."""
P_SHARES_SAMPLES = 12
"""Whether the samples of a request share its prompt."""
P_IS_PADDED = 13
"""Whether the prompts of a batch are made as long as its longest one, and every sequence grows until all are done."""
P_LONGEST = 14
"""Tokens of the longest sequence that is accepted."""
P_REGIONS = 15
"""Regions of the longest sequence that fit at once (contiguous kinds)."""
N_PARAMS = 16

F_FLOPS_PER_US = 0
F_BYTES_PER_US = 1
F_FLOPS_PER_TOKEN = 2
F_FLOPS_PER_PAIR = 3
F_WEIGHT_BYTES = 4
F_OVERHEAD_US = 5
F_SWAP_BYTES_PER_US = 6
F_UNIT_BYTES = 7
N_COSTS = 8

C_NOW = 0
C_N_ARRIVED = 1
C_NEXT = 2
"""The next request that has not been started."""
C_N_RUNNING = 3
C_N_PREEMPTED = 4
C_N_DONE = 5
C_N_REFUSED = 6
C_ALLOC = 7
"""Units taken by requests: what cannot serve another."""
C_TOKENS = 8
"""Units of tokens held, each shared one counted once."""
C_FUTURE = 9
"""Units of tokens still to come, of regions that are there for them."""
C_SLACK = 10
"""Units that the buddy allocator's powers of two add."""
C_IDLE = 11
"""Units of cached blocks that nobody reads."""
C_SWAPPED = 12
C_LOGICAL = 13
"""Units of tokens read by all sequences, shared ones counted for each."""
C_N_PREEMPTIONS = 14
C_N_SWAPS = 15
C_N_RECOMPUTED = 16
"""Tokens computed before and lost to a preemption."""
C_N_EVICTIONS = 17
C_N_QUERIED = 18
"""Full blocks of prompts that were looked for at a request's first start."""
C_N_HIT = 19
C_N_GENERATED = 20
C_N_COMPUTED = 21
C_PEAK_RUNNING = 22
C_PEAK_ALLOC = 23
C_PEAK_TOKENS = 24
C_N_STEPS = 25
C_IS_BLOCKED = 26
"""Whether a request waits because memory lacks."""
C_STEP_SWAPPED = 27
"""Units moved to or from the host in this step."""
C_N_FINISHED = 28
"""Requests that are done and still hold memory: of a static batch until all of it is done."""
C_BUSY_US = 29
C_IS_FULL = 30
"""Whether tensors ran out of memory, so that nothing starts until a request is done (tensor kinds)."""
C_SAVED = 31
"""Units that would be taken on top if no block were shared."""
C_N_COPIES = 32
"""Blocks copied when samples of a request went apart."""
C_N_SEQUENCES = 33
"""Samples of all running requests."""
C_N_PADS = 34
"""Tokens that prompts and finished sequences were padded with."""
C_BATCH_TOKENS = 35
"""Tokens that the prompts of the next batch are padded to (padded batches)."""
C_N_BATCH = 36
"""Requests that the next batch may still take (padded batches)."""
N_COUNTERS = 37

I_TOKENS = 0
I_RESERVATION = 1
I_INTERNAL = 2
I_EXTERNAL = 3
I_IDLE = 4
N_INTEGRALS = 5

T_TIME = 0
"""Where a step ends."""
T_RUNNING = 1
T_WAITING = 2
T_TOKENS = 3
T_ALLOC = 4
T_START = 5
"""Where a step begins: later than the one before it ended if nothing was there to serve."""
T_RESERVATION = 6
T_SLACK = 7
T_EXTERNAL = 8
T_PREEMPTIONS = 9
"""Preemptions until now."""
T_SAVED = 10
N_TIMELINE = 11

STATUS_DONE = 0
STATUS_PAUSE = 1
"""The timeline is full: the caller takes it, and the integrals, and goes on."""
STATUS_STUCK = 2

R_ARRIVAL = 0
R_PROMPT = 1
R_OUTPUT = 2
R_REGION = 3
"""Units reserved for each sample (contiguous kinds)."""
R_IS_REFUSED = 4
R_COMPUTED = 5
"""Tokens held of each sample."""
R_GENERATED = 6
R_ORDER = 7
R_FIRST_ADDRESS = 8
"""Its buddy blocks: the power of two, and where their addresses begin in ``addresses``."""
R_IS_SWAPPED = 9
R_FIRST_TOKEN_US = 10
R_FINISH_US = 11
R_CHUNK_START = 12
R_SAMPLES = 13
R_PAD = 14
"""Tokens before its first one that make its prompt as long as the batch's longest, and after its last one (padded)."""
N_REQUEST_COLUMNS = 15

L_RUNNING = 0
L_PREEMPTED = 1
L_FINISHED = 2
N_LISTS = 3

S_ALLOC = 0
S_TOKENS = 1
N_SIZES = 2

K_READERS = 0
K_PREVIOUS = 1
K_NEXT = 2
N_NODE_ROWS = 3

W_TOKENS = 0
W_UNITS = 1
N_WINDOW_COLUMNS = 2

MAX_ORDERS = 62


class Rules(NamedTuple):
    """What says how much memory a sequence takes: part of :class:`Serving`, for functions that need no more.

    Everything that is passed is an argument for each part of each of its arrays, and is compiled as such.
    """

    params: Any
    sizes: Any
    windows: Any


class Serving(NamedTuple):
    """Everything of one replay. Few arrays, because every one of them is many arguments to every compiled function.

    Attributes
    ----------
    params, costs, counters, integrals
        int64 (N_PARAMS,), float64 (N_COSTS,), int64 (N_COUNTERS,), int64 (N_INTEGRALS,) in unit·µs.
    requests
        int64 (n, N_REQUEST_COLUMNS).
    lists
        int64 (N_LISTS, max_running): requests in order of start; preempted ones in order of arrival; those that are
        done and still hold memory.
    sizes
        int64 (N_SIZES, longest + 1): units taken, and units held, by a sequence of so many tokens.
    free_blocks
        int64 (MAX_ORDERS, 1 + m): the buddy allocator's free blocks of each power of two, their number first.
    addresses
        int64 (samples,): the buddy block of each sample (contiguous kinds).
    windows
        int64 (m, N_WINDOW_COLUMNS): layers by window, 0 for all tokens, and units of a token in those.
    chunk_id
        int64: see ``RequestTable``.
    nodes
        int32 (N_NODE_ROWS, keys + 1): readers of a shared block, −1 where it is not cached; the idle ones as a ring
        through the last entry, the next to be evicted first.
    timeline
        int64 (rows, N_TIMELINE): one row a step.
    store
        ``kv_tensors.Tensors``, or ``NoTensors`` for the other kinds.
    """

    params: Any
    costs: Any
    counters: Any
    integrals: Any
    requests: Any
    lists: Any
    sizes: Any
    free_blocks: Any
    addresses: Any
    windows: Any
    chunk_id: Any
    nodes: Any
    timeline: Any
    store: Any
