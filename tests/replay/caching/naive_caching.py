"""The caching allocator again, slow and obvious: lists that are sorted on every look, no shared code with memscope."""

SMALL_LIMIT = 1048576
MiB = 1048576


class Block:
    def __init__(self, owner, address, size, state, serial):
        self.owner, self.address, self.size, self.state, self.serial = owner, address, size, state, serial
        self.requested = 0
        self.inserted_at_call = 0


class Segment:
    def __init__(self, address, size, stream, pool, is_large, is_expandable, serial):
        self.address, self.size, self.stream, self.pool = address, size, stream, pool
        self.is_large, self.is_expandable, self.serial = is_large, is_expandable, serial
        self.blocks = []


class OutOfMemoryError(Exception):
    pass


class NaiveCachingAllocator:
    def __init__(
        self,
        total=None,
        tie="segment_age",
        max_split=None,
        non_split_rounding=20 * MiB,
        divisions=(0,) * 16,
        gc=0.0,
        fraction=1.0,
        expandable=False,
        large_segment=20 * MiB,
    ):
        self.total, self.tie, self.max_split, self.non_split_rounding = total, tie, max_split, non_split_rounding
        self.divisions, self.gc, self.expandable, self.large_segment = divisions, gc, expandable, large_segment
        self.limit = int(fraction * total) if total is not None and fraction < 1 else None
        self.segments, self.events, self.waiting = [], [], []
        self.next_address, self.n_blocks, self.n_segments, self.n_calls, self.n_retries = 0x7F0000000000, 0, 0, 0, 0

    # -- arithmetic

    def rounded(self, size):
        if size < 512:
            return 512
        interval = max(0, min(15, size.bit_length() - 1 - 20))
        divisions = self.divisions[interval]
        if divisions > 1 and size > 512 * divisions:
            power = 1
            while power * 2 <= size:
                power *= 2
            if power == size:
                return size
            step = power // divisions
            return -(-size // step) * step
        return -(-size // 512) * 512

    def segment_bytes(self, rounded):
        if rounded <= SMALL_LIMIT:
            return 2 * MiB
        if rounded < 10 * MiB:
            return self.large_segment
        return -(-rounded // (2 * MiB)) * 2 * MiB

    # -- looking

    def all_blocks(self):
        return [block for segment in self.segments for block in segment.blocks]

    def key(self, block):
        tie = {"address": 0, "block_age": block.serial, "segment_age": block.owner.serial}[self.tie]
        return block.size, tie, block.address

    def free_blocks(self, pool, stream, is_large):
        mine = [
            block
            for segment in self.segments
            if (segment.pool, segment.stream, segment.is_large) == (pool, stream, is_large)
            for block in segment.blocks
            if block.state == "free"
        ]
        return sorted(mine, key=self.key)

    def neighbour(self, block, step):
        blocks = block.owner.blocks
        i = blocks.index(block) + step
        return blocks[i] if 0 <= i < len(blocks) else None

    @property
    def reserved(self):
        return sum(block.size for block in self.all_blocks() if block.state != "unmapped")

    def bytes_in(self, *states):
        return sum(block.size for block in self.all_blocks() if block.state in states)

    # -- requests

    def find(self, pool, stream, rounded):
        candidates = [b for b in self.free_blocks(pool, stream, rounded > SMALL_LIMIT) if b.size >= rounded]
        if not candidates:
            return None

        def room(block):
            after = self.neighbour(block, 1)
            return block.size + (after.size if after is not None and after.state == "unmapped" else 0)

        if self.expandable:
            while (
                len(candidates) > 1 and candidates[0].owner.is_expandable and room(candidates[1]) < room(candidates[0])
            ):
                candidates.pop(0)
        found = candidates[0]
        if self.max_split is not None:
            if rounded < self.max_split <= found.size:
                return None
            if rounded >= self.max_split and found.size >= rounded + self.non_split_rounding:
                return None
        return found

    def new_block(self, owner, address, size, state):
        self.n_blocks += 1
        return Block(owner, address, size, state, self.n_blocks)

    def malloc(self, size, stream=0, pool=0):
        rounded = self.rounded(size)
        is_large = rounded > SMALL_LIMIT
        collects = self.limit is not None and self.gc > 0
        if is_large and pool == 0 and collects:
            self.n_calls += 1
        block = self.find(pool, stream, rounded) or self.miss(pool, stream, rounded, collects)
        splits = block.size - rounded >= 512
        if is_large and not self.expandable:
            splits = (self.max_split is None or rounded < self.max_split) and block.size - rounded > SMALL_LIMIT
        if splits:
            front = self.new_block(block.owner, block.address, rounded, "allocated")
            block.owner.blocks.insert(block.owner.blocks.index(block), front)
            block.address += rounded
            block.size -= rounded
            self.set_free(block)
            block = front
        block.state, block.requested = "allocated", size
        self.log("alloc", block.address, size, block.owner)
        return block.address

    def log(self, action, address, size, segment):
        self.events.append((action, address, size, segment.stream, segment.pool))

    def driver_has(self, size):
        granules = [-(-s.size // (2 * MiB)) * 2 * MiB for s in self.segments if not s.is_expandable]
        mapped = sum(b.size for b in self.all_blocks() if b.owner.is_expandable and b.state != "unmapped")
        return self.total is None or sum(granules) + mapped + -(-size // (2 * MiB)) * 2 * MiB <= self.total

    def driver(self, pool, stream, rounded):
        size = self.segment_bytes(rounded)
        if self.limit is not None and self.reserved + size > self.limit:
            return None
        if self.expandable:
            return self.grow(pool, stream, rounded)
        if not self.driver_has(size):
            return None
        segment = self.new_segment(self.next_address, size, stream, pool, rounded > SMALL_LIMIT, False)
        self.next_address += -(-size // (2 * MiB)) * 2 * MiB
        segment.blocks.append(self.new_block(segment, segment.address, size, "taken"))
        self.log("segment_alloc", segment.address, size, segment)
        return segment.blocks[0]

    def new_segment(self, address, size, stream, pool, is_large, is_expandable):
        self.n_segments += 1
        self.segments.append(Segment(address, size, stream, pool, is_large, is_expandable, self.n_segments))
        return self.segments[-1]

    def miss(self, pool, stream, rounded, collects):
        if collects:
            self.collect_garbage()
        block = self.driver(pool, stream, rounded)
        if block is None and self.max_split is not None and self.release_oversize(pool, stream, rounded):
            block = self.driver(pool, stream, rounded)
        if block is None:
            self.empty_cache()
            self.n_retries += 1
            block = self.driver(pool, stream, rounded)
        if block is None:
            self.events.append(("oom", -1, rounded, stream, pool))
            raise OutOfMemoryError
        return block

    # -- frees

    def at(self, address, state):
        return next(b for b in self.all_blocks() if b.address == address and b.state == state)

    def free(self, address, waits=False):
        block = self.at(address, "allocated")
        self.log("free_requested", address, block.requested, block.owner)
        block.state = "pending"
        if waits:
            self.waiting.append(block)
        else:
            self.complete(block)

    def complete_free(self, address):
        block = self.at(address, "pending")
        self.waiting.remove(block)
        self.complete(block)

    def complete(self, block):
        self.log("free_completed", block.address, block.requested, block.owner)
        block.state = "free"
        self.merge(block)
        self.set_free(block)

    def set_free(self, block):
        block.state, block.inserted_at_call = "free", self.n_calls

    def merge(self, block):
        for step in (-1, 1):
            other = self.neighbour(block, step)
            if other is not None and other.state == block.state:
                block.address = min(block.address, other.address)
                block.size += other.size
                block.owner.blocks.remove(other)

    # -- giving back

    def give_back(self, block):
        self.log("segment_free", block.address, block.size, block.owner)
        self.segments.remove(block.owner)

    def whole(self, block):
        return len(block.owner.blocks) == 1 and not block.owner.is_expandable

    def empty_cache(self):
        while self.waiting:
            self.complete(self.waiting.pop(0))
        pools = sorted({segment.pool for segment in self.segments})
        for pool in pools:
            for is_large in (True, False) if pool == 0 else (False, True):
                streams = sorted({s.stream for s in self.segments})
                blocks = [b for stream in streams for b in self.free_blocks(pool, stream, is_large)]
                for block in blocks:
                    if self.whole(block):
                        self.give_back(block)
                for block in blocks:
                    if block.owner.is_expandable:
                        self.unmap(block)

    def collect_garbage(self):
        target = self.reserved - int(self.gc * self.limit)
        while target > 0:
            streams = sorted({s.stream for s in self.segments})
            old = [b for stream in streams for b in self.free_blocks(0, stream, True) if self.whole(b)]
            if not old:
                return
            ages = [self.n_calls - b.inserted_at_call for b in old]
            mean = sum(ages) / len(ages)
            for block, age in zip(old, ages, strict=True):
                if age >= mean:
                    target -= block.size
                    self.give_back(block)

    def release_oversize(self, pool, stream, rounded):
        wanted = max(rounded, self.max_split)
        blocks = self.free_blocks(pool, stream, rounded > SMALL_LIMIT)
        enough = [block for block in blocks if block.size >= wanted]
        if enough and not enough[0].owner.is_expandable:
            self.give_back(enough[0])
            return True
        released = 0
        for block in reversed([block for block in blocks if self.max_split <= block.size < wanted]):
            if released >= wanted:
                break
            if not block.owner.is_expandable:
                released += block.size
                self.give_back(block)
        return released >= wanted

    # -- expandable segments

    def handle(self, segment):
        return self.large_segment if segment.is_large else 2 * MiB

    def grow(self, pool, stream, rounded):
        is_large = rounded > SMALL_LIMIT
        candidate = self.candidate(pool, stream, is_large, rounded)
        if candidate is None:
            handle = self.large_segment if is_large else 2 * MiB
            size = (16 << 40) if self.total is None else self.total + self.total // 8
            size = -(-size // handle) * handle
            segment = self.new_segment(self.next_address, size, stream, pool, is_large, True)
            self.next_address += size
            candidate = self.new_block(segment, segment.address, size, "unmapped")
            segment.blocks.append(candidate)
            if size < rounded:
                return None
        if candidate.state == "unmapped" and not self.map(candidate, min(candidate.size, rounded)):
            return None
        while candidate.size < rounded:
            after = self.neighbour(candidate, 1)
            if not self.map(after, min(rounded - candidate.size, after.size)):
                return None
            candidate = after
        return candidate

    def candidate(self, pool, stream, is_large, rounded):
        segments = [
            s
            for s in self.segments
            if (s.pool, s.stream, s.is_large, s.is_expandable) == (pool, stream, is_large, True)
        ]
        for segment in sorted(segments, key=lambda s: s.address):
            for i, block in enumerate(segment.blocks):
                if block.state != "unmapped":
                    continue
                first = i - 1 if i and segment.blocks[i - 1].state == "free" else i
                room = 0
                for other in segment.blocks[first:]:
                    if other.state not in ("free", "unmapped"):
                        break
                    room += other.size
                if room >= rounded:
                    return segment.blocks[first]
        return None

    def map(self, block, size):
        size = -(-size // self.handle(block.owner)) * self.handle(block.owner)
        if not self.driver_has(size):
            return False
        blocks, address = block.owner.blocks, block.address
        if block.size > size:
            rest = self.new_block(block.owner, address + size, block.size - size, "unmapped")
            blocks.insert(blocks.index(block) + 1, rest)
        block.size = size
        block.state = "free"
        self.merge(block)
        self.set_free(block)
        self.log("segment_map", address, size, block.owner)
        return True

    def unmap(self, block):
        segment, handle = block.owner, self.handle(block.owner)
        begin = segment.address + -(-(block.address - segment.address) // handle) * handle
        end = segment.address + (block.address + block.size - segment.address) // handle * handle
        if end <= begin:
            return
        i = segment.blocks.index(block)
        before, after = begin - block.address, block.address + block.size - end
        if before:
            piece = self.new_block(segment, block.address, before, "free")
            self.set_free(piece)
            segment.blocks.insert(i, piece)
        if after:
            piece = self.new_block(segment, end, after, "free")
            self.set_free(piece)
            segment.blocks.insert(segment.blocks.index(block) + 1, piece)
        block.address, block.size, block.state = begin, end - begin, "unmapped"
        self.merge(block)
        self.log("segment_unmap", begin, end - begin, segment)
        if len(segment.blocks) == 1:
            self.segments.remove(segment)
