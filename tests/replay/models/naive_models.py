"""Slow, obvious twins of the modelled block allocators: lists of segments, each a list of blocks, searched in full."""

from dataclasses import dataclass, field

GRANULE = 2 << 20
BASE = 0x7F0000000000


def up(n_bytes, alignment):
    return -(-n_bytes // alignment) * alignment


@dataclass(eq=False)
class Block:
    address: int
    size: int
    state: str = "free"
    owner: object = None
    segment: object = None


@dataclass(eq=False)
class Segment:
    address: int
    size: int
    blocks: list = field(default_factory=list)


class Twin:
    """What all share: the driver, the pending frees, and the order of a retry."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.segments = []
        self.pending = []
        self.at = {}
        self.next_address = BASE
        self.n_retries = self.n_takes = self.n_gives = 0

    @property
    def reserved(self):
        return sum(segment.size for segment in self.segments)

    def driver_has(self, n_bytes):
        used = sum(up(segment.size, GRANULE) for segment in self.segments)
        return self.capacity is None or used + up(n_bytes, GRANULE) <= self.capacity

    def room(self):
        return self.capacity - sum(up(segment.size, GRANULE) for segment in self.segments)

    def add_segment(self, n_bytes, owner=None):
        segment = Segment(self.next_address, n_bytes)
        self.next_address += up(n_bytes, GRANULE)
        block = Block(segment.address, n_bytes, "free", owner, segment)
        segment.blocks = [block]
        self.segments.append(segment)
        self.n_takes += 1
        return block

    def free_blocks(self, owner=None):
        return [b for s in self.segments for b in s.blocks if b.state == "free" and b.owner == owner]

    def best_fit(self, size, owner=None):
        fits = [block for block in self.free_blocks(owner) if block.size >= size]
        return min(fits, key=lambda block: (block.size, block.address), default=None)

    def cut(self, block, size):
        """The front of a block."""
        if block.size > size:
            blocks = block.segment.blocks
            rest = Block(block.address + size, block.size - size, "free", block.owner, block.segment)
            blocks.insert(blocks.index(block) + 1, rest)
            block.size = size
        return block

    def merge(self, segment):
        """Join free neighbours of one owner."""
        joined = segment.blocks[:1]
        for block in segment.blocks[1:]:
            last = joined[-1]
            if last.state == block.state == "free" and last.owner == block.owner:
                last.size += block.size
            else:
                joined.append(block)
        segment.blocks = joined

    def drop_unused(self):
        unused = [s for s in self.segments if len(s.blocks) == 1 and s.blocks[0].state == "free"]
        self.segments = [s for s in self.segments if s not in unused]
        self.n_gives += len(unused)

    def sync(self):
        pending, self.pending = self.pending, []
        for block in pending:
            self.return_block(block)

    def return_block(self, block):
        block.state = "free"
        self.give_back(block)

    def malloc(self, size, stream=0):
        block = self.find(size, stream)
        if block is None:
            self.sync()
            self.n_retries += 1
            block = self.find_again(size, stream)
        if block is None:
            return None
        block.state = "allocated"
        self.at[block.address] = block
        return block.address

    def free(self, address, waits=False):
        block = self.at.pop(address)
        if waits:
            block.state = "pending"
            self.pending.append(block)
        else:
            self.return_block(block)

    def complete(self, address):
        block = next(block for block in self.pending if block.address == address)
        self.pending.remove(block)
        self.return_block(block)

    def empty(self):
        self.sync()
        self.release()

    def release(self):
        self.drop_unused()

    def give_back(self, block):
        self.merge(block.segment)


class NaiveBfc(Twin):
    def __init__(self, capacity, first=2 << 20, slack=128 << 20, collects=True):
        super().__init__(capacity)
        self.first = self.region = first
        self.slack, self.collects = slack, collects

    def find(self, size, stream):
        size = up(size, 256)
        block = self.best_fit(size) or self.extend(size)
        if block is not None and (block.size >= 2 * size or block.size - size >= self.slack):
            self.cut(block, size)
        return block

    def extend(self, size):
        room = None if self.capacity is None else self.room() // 256 * 256
        if room is not None and size > room:
            return None
        raised = self.region < size
        while self.region < size:
            self.region *= 2
        n_bytes = self.region if room is None else min(self.region, room)
        while not self.driver_has(n_bytes):
            n_bytes = min(up(n_bytes * 9 // 10, 256), n_bytes - 256)
            if n_bytes < size:
                return None
        if not raised:
            self.region *= 2
        return self.add_segment(n_bytes)

    def find_again(self, size, stream):
        rounded = up(size, 256)
        if self.best_fit(rounded) is None:
            unused = sum(s.size for s in self.segments if len(s.blocks) == 1 and s.blocks[0].state == "free")
            if not (self.collects and unused and rounded <= unused + self.room()):
                return None
            self.drop_unused()
        return self.find(size, stream)

    def release(self):
        self.drop_unused()
        left = self.first
        while left <= self.reserved:
            left *= 2
        self.region = min(self.region, left)


class NaiveBuddy(Twin):
    def __init__(self, capacity, smallest=512, chunk=32 << 20):
        super().__init__(capacity)
        self.smallest, self.chunk = smallest, chunk

    def find(self, size, stream):
        rounded = self.smallest
        while rounded < size:
            rounded *= 2
        block = self.best_fit(rounded) or self.extend(rounded)
        while block is not None and block.size > rounded:
            self.cut(block, block.size // 2)
        return block

    def extend(self, rounded):
        n_bytes = max(rounded, self.chunk)
        while n_bytes >= rounded:
            if self.driver_has(n_bytes):
                return self.add_segment(n_bytes)
            n_bytes //= 2
        return None

    def find_again(self, size, stream):
        self.drop_unused()
        return self.find(size, stream)

    def give_back(self, block):
        """Join any two free halves of one whole, until there are none."""
        segment, joined = block.segment, True
        while joined:
            joined = False
            for one, other in zip(segment.blocks, segment.blocks[1:], strict=False):
                is_pair = one.size == other.size and (one.address - segment.address) % (2 * one.size) == 0
                if is_pair and one.state == other.state == "free":
                    one.size *= 2
                    segment.blocks.remove(other)
                    joined = True
                    break


class NaivePool(Twin):
    """Owners of free blocks are streams."""

    def __init__(self, capacity, initial=0, maximum=None, returns=True):
        super().__init__(capacity)
        self.initial, self.maximum, self.returns = initial, maximum, returns
        self.streams = [0]

    def find(self, size, stream):
        if stream not in self.streams:
            self.streams.append(stream)
        if not self.segments and self.initial and self.driver_has(self.initial):
            self.add_segment(self.initial, stream)
        return self.take(up(size, 256), stream)

    def take(self, size, stream):
        block = self.search(size, stream) or self.grow(size, stream)
        if block is not None:
            self.cut(block, size)
            block.owner = stream
        return block

    def search(self, size, stream):
        others = [other for other in self.streams if other != stream]
        for owner in [stream, *others]:
            block = self.best_fit(size, owner)
            if block is not None:
                return block
        for owner in others:
            if not self.free_blocks(owner):
                continue
            for block in self.free_blocks(owner):
                block.owner = stream
            for segment in self.segments:
                self.merge(segment)
            block = self.best_fit(size, stream)
            if block is not None:
                return block
        return None

    def grow(self, size, stream):
        wanted = max(size, self.reserved)
        if self.maximum is not None:
            remaining = up(self.maximum - self.reserved, 256)
            if size > remaining:
                return None
            wanted = max(size, remaining // 2)
        while not self.driver_has(wanted):
            if wanted == size:
                return None
            wanted = max(size, wanted // 2)
        return self.add_segment(wanted, stream)

    def find_again(self, size, stream):
        self.release()
        return self.find(size, stream)

    def release(self):
        if self.returns:
            for segment in self.segments:
                self.merge_streams(segment)
            self.drop_unused()

    def merge_streams(self, segment):
        joined = segment.blocks[:1]
        for block in segment.blocks[1:]:
            last = joined[-1]
            is_pools = isinstance(last.owner, int) and isinstance(block.owner, int)
            if is_pools and last.state == block.state == "free":
                last.size += block.size
            else:
                joined.append(block)
        segment.blocks = joined


class NaiveArena(Twin):
    """RMM's own formulation: one arena as long as the device, the untouched rest of it an empty superblock.

    Superblocks are segments, their owners streams, or None for the global arena.
    """

    LENGTH = 1 << 50

    def __init__(self, capacity=None, superblock=1 << 20):
        super().__init__(None)
        assert capacity is None, "the end of a real arena is not what the model has there"
        self.least = superblock
        self.add_superblock(BASE, self.LENGTH)
        self.extent = BASE

    @property
    def reserved(self):
        return self.extent - BASE

    def add_superblock(self, address, size):
        segment = Segment(address, size)
        segment.owner = None
        segment.blocks = [Block(address, size, "free", None, segment)]
        self.segments.append(segment)
        self.segments.sort(key=lambda one: one.address)
        return segment

    def find(self, size, stream):
        size = up(size, 256)
        is_large = size > self.least
        if not is_large:
            for segment in self.segments:
                if segment.owner == ("stream", stream) and self.fits(segment, size):
                    return self.cut(self.fits(segment, size), size)
        segment = next(segment for segment in self.segments if segment.owner is None and self.fits(segment, size))
        least = max(self.least, size)
        if self.is_empty(segment) and segment.size >= least + self.least:
            self.segments.remove(segment)
            rest = self.add_superblock(segment.address + least, segment.size - least)
            segment = self.add_superblock(segment.address, least)
            if rest is self.segments[-1]:
                self.extent = max(self.extent, rest.address)
        if not is_large:
            segment.owner = ("stream", stream)
        return self.cut(self.fits(segment, size), size)

    def fits(self, segment, size):
        return next((block for block in segment.blocks if block.state == "free" and block.size >= size), None)

    def is_empty(self, segment):
        return all(block.state == "free" for block in segment.blocks)

    def give_back(self, block):
        self.merge(block.segment)
        self.join()

    def join(self):
        """Join empty neighbours of the global arena."""
        i = 0
        while i + 1 < len(self.segments):
            one, other = self.segments[i : i + 2]
            if one.owner is None and other.owner is None and self.is_empty(one) and self.is_empty(other):
                del self.segments[i : i + 2]
                self.add_superblock(one.address, one.size + other.size)
            else:
                i += 1

    def release(self):
        for segment in self.segments:
            segment.owner = None
        self.join()
        if self.is_empty(self.segments[-1]):
            self.extent = self.segments[-1].address


class NaiveBinning(NaivePool):
    """A pool whose blocks of a bin are owned by (bin's size, address of the chunk)."""

    def __init__(self, capacity, smallest=18, largest=22, per_chunk=128, **pool):
        super().__init__(capacity, **pool)
        self.bins = [1 << exponent for exponent in range(smallest, largest + 1)]
        self.per_chunk = per_chunk

    def take(self, size, stream):
        size_of_bin = next((one for one in self.bins if one >= size), None)
        if size_of_bin is None:
            return super().take(size, stream)
        free = [b for s in self.segments for b in s.blocks if b.state == "free" and isinstance(b.owner, tuple)]
        free = [block for block in free if block.owner[0] == size_of_bin]
        if free:
            return self.cut(min(free, key=lambda block: (block.size, block.owner[1], block.address)), size_of_bin)
        chunk = super().take(size_of_bin * self.per_chunk, stream)
        if chunk is not None:
            chunk.owner = (size_of_bin, chunk.address)
            self.cut(chunk, size_of_bin)
        return chunk

    def merge(self, segment):
        joined = segment.blocks[:1]
        for block in segment.blocks[1:]:
            last = joined[-1]
            if last.state == block.state == "free" and last.owner == block.owner and isinstance(block.owner, int):
                last.size += block.size
            else:
                joined.append(block)
        segment.blocks = joined

    def release(self):
        for segment in self.segments if self.returns else []:
            for owner in {block.owner for block in segment.blocks if isinstance(block.owner, tuple)}:
                chunk = [block for block in segment.blocks if block.owner == owner]
                if all(block.state == "free" for block in chunk):
                    for block in chunk:
                        block.owner = 0
        super().release()


class NaiveAsyncPool(Twin):
    """Owners of free blocks are streams, or None where every stream may have them."""

    def __init__(self, capacity, chunk=32 << 20, page=2 << 20, threshold=None, shares=True, remaps=True):
        super().__init__(capacity)
        self.chunk, self.page, self.threshold = chunk, page, threshold
        self.shares, self.remaps = shares, remaps
        self.n_created = self.n_released = 0

    def find(self, size, stream):
        size = up(size, 512)
        owner = None if self.shares else stream
        block = self.best_fit(size, owner) or self.best_fit(size, None) or self.grow(size, owner)
        if block is not None:
            self.cut(block, size)
            block.owner = stream
        return block

    def unused(self, owner):
        blocks = [s.blocks[0] for s in self.segments if len(s.blocks) == 1]
        return [block for block in blocks if block.state == "free" and block.owner == owner]

    def grow(self, size, owner):
        remapped, n_unused = [], 0
        largest_first = sorted(self.unused(owner), key=lambda block: (-block.size, -block.address))
        for block in largest_first if self.remaps else []:
            if n_unused < size:
                remapped.append(block.segment)
                n_unused += block.size
        lacking = max(size - n_unused, 0)
        n_new = next((n for n in (up(lacking, self.chunk), up(lacking, self.page)) if self.driver_has(n)), None)
        if n_new is None:
            return None
        self.segments = [segment for segment in self.segments if segment not in remapped]
        self.n_created += up(n_new, self.chunk) // self.chunk
        return self.add_segment(n_unused + n_new, owner)

    def find_again(self, size, stream):
        self.release()
        return self.find(size, stream)

    def trim(self, keep, owner):
        for block in sorted(self.unused(owner), key=lambda block: (block.size, block.address)):
            if self.reserved > keep:
                self.segments.remove(block.segment)
                self.n_released += up(block.size, self.chunk) // self.chunk

    def give_back(self, block):
        if self.shares:
            block.owner = None
        self.merge(block.segment)
        if self.threshold is not None:
            self.trim(self.threshold, block.owner)

    def release(self):
        for segment in self.segments:
            for block in segment.blocks:
                if block.state == "free":
                    block.owner = None
            self.merge(segment)
        self.trim(0, None)
