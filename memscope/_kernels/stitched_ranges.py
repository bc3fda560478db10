"""Rows of stitched ranges: which blocks each is made of, which are idle, and which idle one was used longest ago.

A range is a doubly linked list of links, one for each of its blocks in order; each block's links, one for each range
over it, are doubly linked too, so that a split reaches them all. Idle ranges hang in a hash table by (lane, size) for
exact matches, the latest first, and in a list from the longest idle one to the latest. Everything is O(1) but for the
walk over a range's or a block's own links.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memscope._kernels import caching_layout as at
from memscope._kernels.compiled import borrowing

# Columns of ``rows`` for a range; a free row is linked through the first.
R_SIZE = 0
R_LANE = 1
R_FIRST = 2
R_LAST = 3
R_WATCH = 4
"""A link whose block was in use when the range was last looked at: most likely it still is."""
R_OLDER = 5
R_NEWER = 6
R_BUCKET_PREV = 7
R_BUCKET_NEXT = 8
R_ADDRESS = 9

# Columns of ``rows`` for a link; a free row is linked through the first.
K_RANGE = 10
K_BLOCK = 11
K_PREV = 12
K_NEXT = 13
K_BLOCK_PREV = 14
K_BLOCK_NEXT = 15

# Columns of ``rows`` for a block, all −1 where it is not a large one.
O_LINK = 16
"""The first of its links."""
O_NEXT_PART = 17
"""The block after it in the allocation that it serves."""
O_RANGE = 18
"""The range that serves the allocation which this block is the first part of."""
N_COLUMNS = 19

# Entries of ``counts``.
N_RANGES = 0
RANGE_TOP = 1
RANGE_SLOT = 2
N_LINKS = 3
LINK_TOP = 4
LINK_SLOT = 5
N_IDLE = 6
OLDEST = 7
NEWEST = 8
N_SMALL_ALLOCS = 9
N_SMALL_FREES = 10
N_STITCHES = 11
N_SPLITS = 12
N_REUSES = 13
N_EVICTIONS = 14
FIRST_BUCKET = 15
N_BUCKETS = 4096
N_COUNTS = FIRST_BUCKET + N_BUCKETS

Int64Array = npt.NDArray[np.int64]


class StitchedRanges(NamedTuple):
    """Two arrays, since handing arrays over is what compiled functions spend most on.

    Attributes
    ----------
    rows
        int64 (rows, N_COLUMNS): row i is range i, link i and what is kept of block i, in columns of their own.
    counts
        int64 (N_COUNTS,): by the entries named in this module; the last ones are the first range of each bucket.
    """

    rows: Int64Array
    counts: Int64Array


@borrowing
def has_room(table, n_more_links, n_blocks):
    """Whether two more ranges and that many more links fit, and all rows of blocks have one here."""
    counts = table.counts
    return (
        counts[N_RANGES] + 2 <= len(table.rows)
        and counts[N_LINKS] + n_more_links <= len(table.rows)
        and n_blocks <= len(table.rows)
    )


@borrowing
def new_range(table, lane, address, n_bytes):
    """Take a row for a range without blocks, not idle yet."""
    rows, counts = table.rows, table.counts
    row = counts[RANGE_SLOT]
    if row == at.NONE:
        row = counts[RANGE_TOP]
        counts[RANGE_TOP] = row + 1
    else:
        counts[RANGE_SLOT] = rows[row, R_SIZE]
    counts[N_RANGES] += 1
    for column in range(R_SIZE, R_ADDRESS):
        rows[row, column] = at.NONE
    rows[row, R_SIZE] = n_bytes
    rows[row, R_LANE] = lane
    rows[row, R_ADDRESS] = address
    return row


@borrowing
def _new_link(table, row, block):
    counts, rows = table.counts, table.rows
    link = counts[LINK_SLOT]
    if link == at.NONE:
        link = counts[LINK_TOP]
        counts[LINK_TOP] = link + 1
    else:
        counts[LINK_SLOT] = rows[link, K_RANGE]
    counts[N_LINKS] += 1
    rows[link, K_RANGE] = row
    rows[link, K_BLOCK] = block
    head = rows[block, O_LINK]
    rows[link, K_BLOCK_PREV] = at.NONE
    rows[link, K_BLOCK_NEXT] = head
    if head != at.NONE:
        rows[head, K_BLOCK_PREV] = link
    rows[block, O_LINK] = link
    return link


@borrowing
def append_block(table, row, block):
    """Let a range end in one more block."""
    rows = table.rows
    link = _new_link(table, row, block)
    last = rows[row, R_LAST]
    rows[link, K_PREV] = last
    rows[link, K_NEXT] = at.NONE
    if last == at.NONE:
        rows[row, R_FIRST] = link
        rows[row, R_WATCH] = link
    else:
        rows[last, K_NEXT] = link
    rows[row, R_LAST] = link


@borrowing
def put_front_part(table, block, front):
    """A block gave its front to another one: all ranges over it now run over both."""
    rows = table.rows
    later = rows[block, O_LINK]
    while later != at.NONE:
        row, earlier = rows[later, K_RANGE], rows[later, K_PREV]
        link = _new_link(table, row, front)
        rows[link, K_PREV] = earlier
        rows[link, K_NEXT] = later
        rows[later, K_PREV] = link
        if earlier == at.NONE:
            rows[row, R_FIRST] = link
        else:
            rows[earlier, K_NEXT] = link
        later = rows[later, K_BLOCK_NEXT]


@borrowing
def _bucket(lane, n_bytes):
    return ((n_bytes >> 21) * 31 + lane) % N_BUCKETS


@borrowing
def keep_idle(table, row):
    """Keep a range that serves no allocation: the latest of them, and the first of its size to be tried."""
    rows, counts = table.rows, table.counts
    newest = counts[NEWEST]
    rows[row, R_OLDER] = newest
    rows[row, R_NEWER] = at.NONE
    if newest == at.NONE:
        counts[OLDEST] = row
    else:
        rows[newest, R_NEWER] = row
    counts[NEWEST] = row
    bucket = _bucket(rows[row, R_LANE], rows[row, R_SIZE])
    head = counts[FIRST_BUCKET + bucket]
    rows[row, R_BUCKET_PREV] = at.NONE
    rows[row, R_BUCKET_NEXT] = head
    if head != at.NONE:
        rows[head, R_BUCKET_PREV] = row
    counts[FIRST_BUCKET + bucket] = row
    counts[N_IDLE] += 1


@borrowing
def take_idle(table, row):
    """Take a range out of the idle ones."""
    rows, counts = table.rows, table.counts
    older, newer = rows[row, R_OLDER], rows[row, R_NEWER]
    if older == at.NONE:
        counts[OLDEST] = newer
    else:
        rows[older, R_NEWER] = newer
    if newer == at.NONE:
        counts[NEWEST] = older
    else:
        rows[newer, R_OLDER] = older
    before, after = rows[row, R_BUCKET_PREV], rows[row, R_BUCKET_NEXT]
    if before == at.NONE:
        counts[FIRST_BUCKET + _bucket(rows[row, R_LANE], rows[row, R_SIZE])] = after
    else:
        rows[before, R_BUCKET_NEXT] = after
    if after != at.NONE:
        rows[after, R_BUCKET_PREV] = before
    counts[N_IDLE] -= 1


@borrowing
def find_idle(table, blocks, lane, n_bytes):
    """The latest idle range of exactly that size, all of whose blocks are free; −1 for none.

    O(ranges of that size), as long as the block that was in use when a range was last looked at still is.
    """
    rows = table.rows
    row = table.counts[FIRST_BUCKET + _bucket(lane, n_bytes)]
    while row != at.NONE:
        is_match = rows[row, R_SIZE] == n_bytes and rows[row, R_LANE] == lane
        if is_match and _is_free(table, blocks, row):
            return row
        row = rows[row, R_BUCKET_NEXT]
    return at.NONE


@borrowing
def _is_free(table, blocks, row):
    rows = table.rows
    if blocks[rows[rows[row, R_WATCH], K_BLOCK], at.B_STATE] != at.FREE:
        return False
    link = rows[row, R_FIRST]
    while link != at.NONE:
        if blocks[rows[link, K_BLOCK], at.B_STATE] != at.FREE:
            rows[row, R_WATCH] = link
            return False
        link = rows[link, K_NEXT]
    return True


@borrowing
def drop_range(table, row):
    """Give the row of a range that is not idle back, and its links."""
    rows, counts = table.rows, table.counts
    link = rows[row, R_FIRST]
    while link != at.NONE:
        following = rows[link, K_NEXT]
        before, after = rows[link, K_BLOCK_PREV], rows[link, K_BLOCK_NEXT]
        if before == at.NONE:
            rows[rows[link, K_BLOCK], O_LINK] = after
        else:
            rows[before, K_BLOCK_NEXT] = after
        if after != at.NONE:
            rows[after, K_BLOCK_PREV] = before
        rows[link, K_RANGE] = counts[LINK_SLOT]
        counts[LINK_SLOT] = link
        counts[N_LINKS] -= 1
        link = following
    rows[row, R_SIZE] = counts[RANGE_SLOT]
    counts[RANGE_SLOT] = row
    counts[N_RANGES] -= 1
