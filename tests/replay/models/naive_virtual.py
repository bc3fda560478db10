"""Slow, obvious twins of the virtual-memory models: plain lists, searched in full."""

from dataclasses import dataclass, field

MiB = 1 << 20
BASE = 0x7F0000000000


def up(n_bytes, multiple):
    return -(-n_bytes // multiple) * multiple


def by_size(item):
    return item.size, item.address


@dataclass(eq=False)
class Block:
    address: int
    size: int
    stream: int = 0
    state: str = "free"


@dataclass(eq=False)
class Slab:
    """Memory that small requests of one stream share."""

    address: int
    size: int
    stream: int
    blocks: list = field(default_factory=list)

    def is_empty(self):
        return len(self.blocks) == 1 and self.blocks[0].state == "free"

    def merge(self):
        joined = self.blocks[:1]
        for block in self.blocks[1:]:
            if joined[-1].state == block.state == "free":
                joined[-1].size += block.size
            else:
                joined.append(block)
        self.blocks = joined


@dataclass(eq=False)
class Given:
    """An allocation: its blocks, and the slab or the stitched range that it came from."""

    address: int
    blocks: list
    source: object = None


class Twin:
    """What both share: slabs, pending frees, the driver's addresses and its limit."""

    def __init__(self, capacity, unit=2 * MiB, large_from=2 * MiB):
        self.capacity, self.unit, self.large_from = capacity, unit, min(unit, large_from)
        self.slabs, self.pending, self.at = [], [], {}
        self.next_address, self.n_retries = BASE, 0
        self.n_mapped = self.n_unmapped = self.n_ranges = self.n_dropped = 0

    def room(self, n_bytes):
        return self.capacity is None or self.reserved + n_bytes <= self.capacity

    def new_address(self, n_bytes):
        address = self.next_address
        self.next_address += up(n_bytes, 2 * MiB)
        return address

    def mapped(self, n_bytes):
        self.n_ranges += 1
        self.n_mapped += n_bytes // self.unit

    def unmapped(self, n_bytes):
        self.n_dropped += 1
        self.n_unmapped += n_bytes // self.unit

    def find(self, n_bytes, stream):
        if n_bytes >= self.large_from:
            return self.find_large(up(n_bytes, self.unit), stream)
        size = up(n_bytes, 512)
        free = [b for s in self.slabs if s.stream == stream for b in s.blocks if b.state == "free" and b.size >= size]
        if not free:
            slab = self.new_slab(stream)
            if slab is None:
                return None
            free = slab.blocks
        block = min(free, key=by_size)
        slab = next(slab for slab in self.slabs if block in slab.blocks)
        if block.size > size:
            rest = Block(block.address + size, block.size - size, stream)
            slab.blocks.insert(slab.blocks.index(block) + 1, rest)
            block.size = size
        return Given(block.address, [block], slab)

    def malloc(self, n_bytes, stream=0):
        given = self.find(n_bytes, stream)
        if given is None:
            self.n_retries += self.reclaim()
            given = self.find(n_bytes, stream)
        if given is None:
            return None
        for block in given.blocks:
            block.state = "used"
        self.at[given.address] = given
        return given.address

    def free(self, address, waits=False):
        given = self.at.pop(address)
        if waits:
            self.pending.append(given)
        else:
            self.take_back(given)

    def complete(self, address):
        given = next(given for given in self.pending if given.address == address)
        self.pending.remove(given)
        self.take_back(given)

    def take_back(self, given):
        for block in given.blocks:
            block.state = "free"
        if isinstance(given.source, Slab):
            given.source.merge()
        else:
            self.take_back_large(given)

    def sync(self):
        pending, self.pending = self.pending, []
        for given in pending:
            self.take_back(given)


class NaivePaged(Twin):
    def __init__(self, capacity, page=2 * MiB, large_from=2 * MiB, keeps=False):
        super().__init__(capacity, page, large_from)
        self.keeps, self.stored, self.ranges = keeps, 0, []

    @property
    def reserved(self):
        return self.stored + sum(held.size for held in [*self.slabs, *self.ranges])

    def unmap(self, held):
        (self.slabs if isinstance(held, Slab) else self.ranges).remove(held)
        self.stored += held.size
        self.unmapped(held.size)

    def gather(self, n_bytes):
        for stream in (0, 7):
            for slab in sorted((s for s in self.slabs if s.stream == stream and s.is_empty()), key=by_size):
                if self.stored < n_bytes:
                    self.unmap(slab)
            while self.stored < n_bytes:
                kept = sorted((r for r in self.ranges if r.stream == stream and r.state == "free"), key=by_size)
                if not kept:
                    break
                self.unmap(next((r for r in kept if r.size >= n_bytes - self.stored), kept[-1]))
        missing = max(n_bytes - self.stored, 0)
        if not self.room(missing):
            return False
        self.stored += missing - n_bytes
        self.mapped(n_bytes)
        return True

    def new_slab(self, stream):
        if not self.gather(self.unit):
            return None
        address = self.new_address(self.unit)
        self.slabs.append(Slab(address, self.unit, stream, [Block(address, self.unit, stream)]))
        return self.slabs[-1]

    def find_large(self, size, stream):
        kept = [r for r in self.ranges if r.state == "free" and r.stream == stream and r.size == size]
        if kept:
            held = min(kept, key=by_size)
        elif self.gather(size):
            held = Block(self.new_address(size), size, stream)
            self.ranges.append(held)
        else:
            return None
        return Given(held.address, [held])

    def take_back_large(self, given):
        if not self.keeps:
            self.unmap(given.blocks[0])

    def reclaim(self):
        helps = bool(self.pending)
        self.sync()
        return helps

    def empty(self):
        self.sync()
        for held in [*(s for s in self.slabs if s.is_empty()), *(r for r in self.ranges if r.state == "free")]:
            self.unmap(held)
        self.stored = 0


class NaiveStitching(Twin):
    def __init__(self, capacity, limit=2 * MiB, n_idle_most=1024):
        super().__init__(capacity)
        self.limit, self.n_idle_most = limit, n_idle_most
        self.primitives, self.idle = [], []

    @property
    def reserved(self):
        return sum(held.size for held in [*self.slabs, *self.primitives])

    def new_slab(self, stream):
        if not self.room(self.unit):
            return None
        address = self.new_address(self.unit)
        self.slabs.append(Slab(address, self.unit, stream, [Block(address, self.unit, stream)]))
        return self.slabs[-1]

    def keep(self, stitched):
        self.idle.append(stitched)
        while len(self.idle) > self.n_idle_most:
            self.unmapped(sum(block.size for block in self.idle.pop(0).blocks))

    def split(self, block, size):
        front = Block(block.address, size, block.stream)
        whole = Given(block.address, [front, block])
        block.address += size
        block.size -= size
        self.primitives.append(front)
        for part in (front, block):
            self.mapped(part.size)
        for stitched in self.idle:
            if block in stitched.blocks:
                stitched.blocks.insert(stitched.blocks.index(block), front)
        self.keep(whole)
        return front

    def find_large(self, size, stream):
        def free(least, most=1 << 60):
            fits = [b for b in self.primitives if b.state == "free" and b.stream == stream and least <= b.size <= most]
            return sorted((b for b in fits if b not in taken), key=by_size)

        taken = []
        if free(size, size):
            block = free(size, size)[0]
            return Given(block.address, [block])
        for stitched in reversed(self.idle):
            is_free = all(block.state == "free" and block.stream == stream for block in stitched.blocks)
            if is_free and sum(block.size for block in stitched.blocks) == size:
                self.idle.remove(stitched)
                return Given(stitched.address, stitched.blocks, stitched)
        if free(size):
            block = self.split(free(size)[0], size)
            return Given(block.address, [block])
        while (missing := size - sum(block.size for block in taken)) > 0:
            if enough := free(max(missing, self.limit)):
                taken.append(enough[0] if enough[0].size == missing else self.split(enough[0], missing))
            elif some := free(self.limit, missing - 1):
                taken.append(some[-1])
            elif self.room(missing):
                taken.append(Block(self.new_address(missing), missing, stream))
                self.primitives.append(taken[-1])
                self.mapped(missing)
            else:
                return None
        if len(taken) == 1:
            return Given(taken[0].address, taken)
        self.mapped(size)
        stitched = Given(self.new_address(size), taken)
        return Given(stitched.address, taken, stitched)

    def take_back_large(self, given):
        if given.source is not None:
            self.keep(given.source)

    def reclaim(self):
        self.empty()
        return 1

    def empty(self):
        self.sync()
        while self.idle:
            self.unmapped(sum(block.size for block in self.idle.pop().blocks))
        for block in [b for b in self.primitives if b.state == "free"]:
            self.primitives.remove(block)
            self.unmapped(block.size)
        self.slabs = [slab for slab in self.slabs if not slab.is_empty()]
