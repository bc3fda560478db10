// Where each block lies in the address space at a moment: segments as rows of tape, blocks and holes in them.
(function () {
  const canvas = window.memscopeCanvas;
  const TWO_32 = 4294967296;
  const SMALL_HANDLE = 2 * 1024 * 1024;
  const GAP_FRAC = 0.004;
  const HEADING = 0.9; // of a row
  /** @type {Hole[]} */
  const HOLES = ["free_releasable", "free_pinned", "free_private_pools"];
  const MIN_PX = 1;

  /** Segments and their changes; addresses as numbers above `base`, exact as long as they span less than 2^53. */
  canvas.segmentsOf = function (buffer) {
    /** @type {Unpacked<SegmentsHeader>} */
    const { header, columns } = canvas.unpack(buffer);
    /** @param {string} name @param {number} i */
    const address = (name, i) => (BigInt(columns[name + "_high"][i]) << 32n) | BigInt(columns[name + "_low"][i]);
    /** @type {bigint | null} */
    let base = null;
    for (const name of ["start_address", "address"]) {
      for (let i = 0; i < columns[name + "_low"].length; i++) {
        const at = address(name, i);
        if (base === null || at < base) base = at;
      }
    }
    const lowest = base === null ? 0n : base;
    /** @param {string} name */
    const above = (name) => Float64Array.from(columns[name + "_low"], (_, i) => Number(address(name, i) - lowest));
    return {
      ...header,
      base: lowest,
      startAddress: above("start_address"),
      startSize: canvas.whole(columns, "start_size"),
      startKey: columns.start_key,
      moment: columns.moment,
      takes: columns.takes,
      address: above("address"),
      size: canvas.whole(columns, "size"),
      key: columns.key,
      group: columns.group,
      isExpandable: columns.is_expandable,
    };
  };

  /** The segments at a moment: [begin, end, key], in order of address. O(changes before it). */
  canvas.rangesAt = function (segments, moment) {
    /** @type {Map<number, [number, number][]>} */
    const byKey = new Map();
    /** @param {number} key @param {number} begin @param {number} end */
    const take = function (key, begin, end) {
      const ranges = byKey.get(key) || [];
      byKey.set(key, ranges);
      const after = ranges.findIndex((range) => range[0] > begin);
      const at = after < 0 ? ranges.length : after;
      ranges.splice(at, 0, [begin, end]);
      if (at + 1 < ranges.length && ranges[at][1] === ranges[at + 1][0]) ranges[at][1] = ranges.splice(at + 1, 1)[0][1];
      if (at > 0 && ranges[at - 1][1] === ranges[at][0]) ranges[at - 1][1] = ranges.splice(at, 1)[0][1];
    };
    /** @param {number} begin @param {number} end */
    const giveBack = function (begin, end) {
      // A segment that is freed has not the key of the event that made it: it is found by where it lies.
      for (const [key, ranges] of byKey) {
        for (let i = 0; i < ranges.length; i++) {
          const [a, b] = ranges[i];
          if (a > begin || b < end) continue;
          /** @type {[number, number][]} */
          const left = [[a, begin], [end, b]];
          ranges.splice(i, 1, ...left.filter(([from, to]) => from < to));
          if (!ranges.length) byKey.delete(key);
          return;
        }
      }
    };
    for (let i = 0; i < segments.startKey.length; i++) {
      take(segments.startKey[i], segments.startAddress[i], segments.startAddress[i] + segments.startSize[i]);
    }
    for (let i = 0; i < segments.moment.length && segments.moment[i] <= moment; i++) {
      const [begin, end] = [segments.address[i], segments.address[i] + segments.size[i]];
      if (segments.takes[i]) take(segments.key[i], begin, end);
      else giveBack(begin, end);
    }
    /** @type {[number, number, number][]} */
    const found = [];
    for (const [key, ranges] of byKey) for (const [begin, end] of ranges) found.push([begin, end, key]);
    return found.sort((a, b) => a[0] - b[0]);
  };

  /** Blocks in use at a moment in order of address, above the segments' base: positions and addresses.
   * @param {Allocations} data @param {Segments} segments @param {number} moment */
  function blocksAt(data, segments, moment) {
    /** @type {[number, number][]} */
    const found = [];
    const high = Number(segments.base >> 32n);
    const low = Number(segments.base & 0xffffffffn);
    const until = canvas.firstAbove(data.start, moment);
    for (let j = 0; j < until; j++) {
      if (data.end[j] > moment) found.push([(data.addressHigh[j] - high) * TWO_32 + data.addressLow[j] - low, j]);
    }
    return found.sort((a, b) => a[0] - b[0]);
  }

  /**
   * Blocks and holes of every segment at a moment.
   */
  canvas.addressSpace = function (data, segments, moment) {
    const ranges = canvas.rangesAt(segments, moment).map(([begin, end, key]) => ({ begin, end, key, group: segments.group[key], at: 0, width: 1, row: 0 }));
    const blocks = blocksAt(data, segments, moment);
    /** @type {Piece[]} */
    const pieces = [];
    let next = 0;
    let nStray = 0;
    for (const segment of ranges) {
      const { begin, end, group, key } = segment;
      while (next < blocks.length && blocks[next][0] < begin) {
        next++;
        nStray++;
      }
      let at = begin;
      /** @type {Piece[]} */
      const own = [];
      /** @param {number} to */
      const hole = (to) => {
        if (to > at) own.push({ begin: at, size: to - at, id: -1, hole: 1, segment });
      };
      while (next < blocks.length && blocks[next][0] < end) {
        const [address, j] = blocks[next++];
        hole(address);
        own.push({ begin: address, size: data.size[j], id: j, hole: -1, segment });
        at = Math.max(at, address + data.size[j]);
      }
      hole(end);
      const handle = segments.groups[group].is_large ? segments.handle_bytes : SMALL_HANDLE;
      for (const piece of own) {
        if (piece.id >= 0) continue;
        const from = Math.ceil((piece.begin - begin) / handle);
        const to = Math.floor((piece.begin + piece.size - begin) / handle);
        const canGo = segments.isExpandable[key] ? to > from : piece.size === end - begin;
        piece.hole = segments.groups[group].is_private ? 2 : canGo ? 0 : 1;
      }
      pieces.push(...own);
    }
    nStray += blocks.length - next;
    return { ...tape(ranges, segments), segments: ranges, pieces, nStray };
  };

  /** Where each segment begins on its group's tape, which wraps; and the row at which each group begins.
   * @param {Segment[]} ranges @param {Segments} segments */
  function tape(ranges, segments) {
    /** @type {Heading[]} */
    const headings = [];
    let row = 0;
    segments.groups.forEach((group, g) => {
      const members = ranges.filter((segment) => segment.group === g);
      if (!members.length) return;
      const width = group.row_bytes || Math.max(...members.map((segment) => segment.end - segment.begin));
      const gap = Math.floor(width * GAP_FRAC);
      let at = 0;
      for (const segment of members) {
        const size = segment.end - segment.begin;
        const offset = at % width;
        if (offset && offset + size > width) at += width - offset;
        segment.at = at;
        segment.width = width;
        segment.row = row + HEADING;
        at += size + ((at + size) % width ? gap : 0);
      }
      const last = members[members.length - 1];
      const rows = Math.ceil((last.at + last.end - last.begin) / width);
      headings.push({ name: group.name, row, rows, width, n: members.length, bytes: members.reduce((sum, one) => sum + one.end - one.begin, 0) });
      row += rows + HEADING;
    });
    return { headings, rows: row };
  }

  /**
   * The rectangles of an address space in a view.
   */
  canvas.placeAddresses = function (space, view, width, height, pinned) {
    const out = new canvas.Rectangles();
    const [sx, sy] = [width / (view.u1 - view.u0), height / (view.v1 - view.v0)];
    /** @type {number[]} */
    const holes = [];
    const air = Math.min(0.12 * sy, 3);
    /** @type {PlacedAddresses["outline"]} */
    const outline = [];
    /** @param {Piece} piece @param {number} from @param {number} size @param {number} id @param {number} count @param {number} hole */
    const put = function (piece, from, size, id, count, hole) {
      const { segment } = piece;
      let at = segment.at + from - segment.begin;
      for (let left = size; left > 0; ) {
        const row = Math.floor(at / segment.width);
        const part = Math.min(left, (row + 1) * segment.width - at);
        const x0 = ((at - row * segment.width) / segment.width - view.u0) * sx;
        const x1 = x0 + (part / segment.width) * sx;
        const top = (segment.row + row - view.v0) * sy;
        if (x1 > 0 && x0 < width && top + sy > 0 && top < height) {
          const ends = (count === 1 ? (at === segment.at + from - segment.begin ? 1 : 0) | (part === left ? 2 : 0) : 0) | (hole < 0 ? 0 : hole === 0 ? 4 : 8);
          const i = out.add(0, x0, Math.max(x1, x0 + 0.5), top + sy - air, top + air, id, count, size, from, ends);
          holes[i] = hole;
          if (id >= 0 && id === pinned) outline.push([x0, x1, top + air, top + sy - air]);
        }
        at += part;
        left -= part;
      }
    };
    /** @typedef {{ piece: Piece, from: number, to: number, count: number, id: number, hole: number, most: number }} Together */
    let run = /** @type {Together | null} */ (null);
    const flush = function () {
      if (run) put(run.piece, run.from, run.to - run.from, run.id, run.count, run.id < 0 ? run.hole : -1);
      run = null;
    };
    for (const piece of space.pieces) {
      const px = (piece.size / piece.segment.width) * sx;
      const isNext = run && run.piece.segment === piece.segment;
      if (run && !isNext) flush();
      if (px >= MIN_PX) {
        flush();
        put(piece, piece.begin, piece.size, piece.id, 1, piece.hole);
      } else {
        if (!run) run = { piece, from: piece.begin, to: piece.begin, count: 0, id: piece.id, hole: piece.hole, most: piece.size };
        run.to = piece.begin + piece.size;
        run.count++;
        if (piece.size > run.most) Object.assign(run, { id: piece.id, hole: piece.hole, most: piece.size });
        if (((run.to - run.from) / piece.segment.width) * sx >= MIN_PX) flush();
      }
    }
    flush();
    /** @param {Piece} piece @returns {[number, number]} */
    const centre = (piece) => {
      const at = piece.segment.at + piece.begin - piece.segment.begin + piece.size / 2;
      const row = Math.floor(at / piece.segment.width);
      return [((at - row * piece.segment.width) / piece.segment.width - view.u0) * sx, (piece.segment.row + row + 0.5 - view.v0) * sy];
    };
    const own = pinned < 0 ? undefined : space.pieces.find((piece) => piece.id === pinned);
    const kept = own ? space.pieces.filter((piece) => piece.hole === 1 && piece.segment === own.segment) : [];
    /** @type {PlacedAddresses["ties"]} */
    const ties = own ? kept.map((piece) => [centre(own), centre(piece)]) : [];
    return { rectangles: out, holes, outline, ties, keptBytes: kept.reduce((sum, piece) => sum + piece.size, 0) };
  };

  /** The piece at a place of the view: exact. Null between segments. */
  canvas.pickAddress = function (space, u, v) {
    for (const segment of space.segments) {
      const row = Math.floor(v - segment.row);
      const at = row * segment.width + u * segment.width - segment.at;
      if (row < 0 || u < 0 || u > 1 || at < 0 || at >= segment.end - segment.begin) continue;
      return space.pieces.find((piece) => piece.segment === segment && piece.begin <= segment.begin + at && segment.begin + at < piece.begin + piece.size) || null;
    }
    return null;
  };

  canvas.HOLES = HOLES;
  canvas.HOLE_WORDS = {
    free_releasable: "free; empty_cache() would give it back",
    free_pinned: "free, but blocks in its segment keep it",
    free_private_pools: "free, in a private pool",
  };
})();
