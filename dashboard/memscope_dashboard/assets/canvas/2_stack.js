// Where each allocation lies in the picture "time × stacked bytes": the oldest at the bottom, each on those before it.
(function () {
  const canvas = window.memscopeCanvas;
  const MIN_PX = 1;
  const FEW = 1024;

  /** @template {Float32Array | Float64Array | Int32Array | Uint8Array} Kind @param {Kind} old @param {Kind} next */
  function moved(old, next) {
    next.set(old);
    return next;
  }

  /**
   * Rectangles that grow by doubling; positions in pixels, `count` more than 1 where several are drawn as one. `ends`:
   * 1 where the allocation begins at the left edge, 2 where it is freed at the right one.
   */
  class Rectangles {
    constructor() {
      this.n = 0;
      this.place = new Float32Array(4 * FEW);
      this.id = new Int32Array(FEW);
      this.count = new Int32Array(FEW);
      this.bytes = new Float64Array(FEW);
      this.bottom = new Float64Array(FEW);
      this.column = new Int32Array(FEW);
      this.ends = new Uint8Array(FEW);
    }
    double() {
      const n = 2 * this.id.length;
      this.place = moved(this.place, new Float32Array(4 * n));
      this.id = moved(this.id, new Int32Array(n));
      this.count = moved(this.count, new Int32Array(n));
      this.bytes = moved(this.bytes, new Float64Array(n));
      this.bottom = moved(this.bottom, new Float64Array(n));
      this.column = moved(this.column, new Int32Array(n));
      this.ends = moved(this.ends, new Uint8Array(n));
    }
    /** @type {RectangleColumns["add"]} */
    add(column, left, right, low, high, id, count, bytes, bottom, ends) {
      if (this.n === this.id.length) this.double();
      const i = this.n++;
      this.place.set([left, right, low, high], 4 * i);
      this.id[i] = id;
      this.count[i] = count;
      this.bytes[i] = bytes;
      this.bottom[i] = bottom;
      this.column[i] = column;
      this.ends[i] = ends;
      return i;
    }
  }

  canvas.Rectangles = Rectangles;

  /** The moments that are drawn and where each begins: one a pixel, and of each pixel's the one that holds most.
   * @param {Allocations} data @param {EventsView} view @param {number} width */
  function samplesOf(data, view, width) {
    const low = Math.max(Math.floor(view.x0), data.low);
    const high = Math.min(Math.ceil(view.x1) - 1, data.high);
    const scale = width / (view.x1 - view.x0);
    const n = high - low + 1;
    if (n <= width) {
      const moments = Int32Array.from({ length: Math.max(n, 0) }, (_, i) => low + i);
      return { moments: moments, lefts: Float32Array.from(moments, (m) => (m - view.x0) * scale), end: (high + 1 - view.x0) * scale };
    }
    /** @type {number[]} */
    const moments = [];
    /** @type {number[]} */
    const lefts = [];
    for (let pixel = Math.max(Math.floor((low - view.x0) * scale), 0); pixel < width; pixel++) {
      const from = Math.max(Math.ceil(view.x0 + pixel / scale), low);
      const to = Math.min(Math.ceil(view.x0 + (pixel + 1) / scale) - 1, high);
      if (from > high) break;
      if (to < from) continue;
      let most = from;
      for (let m = from + 1; m <= to; m++) if (data.active[m - data.low] > data.active[most - data.low]) most = m;
      moments.push(most);
      lefts.push(pixel);
    }
    return { moments: Int32Array.from(moments), lefts: Float32Array.from(lefts), end: (high + 1 - view.x0) * scale };
  }

  /**
   * The rectangles of a view of `width` × `height` pixels. Those of less than a pixel are drawn together with their
   * neighbours; nothing is left out of the heights. O(allocations + columns × what is in use).
   * `pinned`: position of the pinned allocation, −1 for none.
   */
  canvas.stack = function (data, view, width, height, pinned) {
    const out = new Rectangles();
    const { start, end, size, last } = data;
    const scale = height / (view.y1 - view.y0);
    const { moments, lefts, end: rightmost } = samplesOf(data, view, width);
    const live = new Int32Array(data.n);
    /** @type {number[]} */
    const outline = [];
    let n = 0;
    let next = 0;
    let rest = 0;
    last.fill(-1);
    for (let k = 0; k < moments.length; k++) {
      const moment = moments[k];
      const left = lefts[k];
      const right = k + 1 < moments.length ? lefts[k + 1] : Math.min(rightmost, width);
      let kept = 0;
      for (let i = 0; i < n; i++) if (end[live[i]] > moment) live[kept++] = live[i];
      while (next < data.n && start[next] <= moment) {
        if (end[next] > moment) live[kept++] = next;
        next++;
      }
      n = kept;
      let bytes = 0;
      let run = 0; // how many of the last ones are too low to be drawn alone
      let runFirst = -1;
      let runBytes = 0;
      let runLargest = -1;
      /** @param {number} first @param {number} id @param {number} count @param {number} low @param {number} amount */
      const put = function (first, id, count, low, amount) {
        const top = low + amount;
        if (top <= view.y0 || low >= view.y1) return;
        const before = last[first];
        const isNext = before >= 0 && out.column[before] === k - 1 && out.count[before] === count;
        const isLast = count === 1 && k + 1 < moments.length && end[id] <= moments[k + 1] ? 2 : 0;
        if (isNext && out.bottom[before] === low && out.bytes[before] === amount) {
          out.place[4 * before + 1] = right;
          out.column[before] = k;
          out.ends[before] |= isLast;
          return;
        }
        const isFirst = count === 1 && !isNext && k && start[id] > moments[k - 1] ? 1 : 0;
        last[first] = out.add(k, left, right, height - (low - view.y0) * scale, height - (top - view.y0) * scale, id, count, amount, low, isFirst | isLast);
      };
      for (let i = 0; i < n; i++) {
        const j = live[i];
        if (j === pinned) outline.push(left, right, bytes, bytes + size[j]);
        if (bytes >= view.y1 && pinned < 0) break;
        if (size[j] * scale >= MIN_PX) {
          if (run) put(runFirst, runLargest, run, bytes - runBytes, runBytes);
          run = runBytes = 0;
          put(j, j, 1, bytes, size[j]);
        } else {
          if (!run) {
            runFirst = j;
            runLargest = j;
          } else if (size[j] > size[runLargest]) runLargest = j;
          run++;
          runBytes += size[j];
          if (runBytes * scale >= MIN_PX) {
            put(runFirst, runLargest, run, bytes + size[j] - runBytes, runBytes);
            run = runBytes = 0;
          }
        }
        bytes += size[j];
      }
      if (run) put(runFirst, runLargest, run, bytes - runBytes, runBytes);
      if (data.n_left_out && bytes < view.y1) {
        while (rest + 1 < data.sample.length && data.sample[rest + 1] <= moment) rest++;
        const amount = data.leftOut[rest];
        const low = Math.max(bytes, view.y0);
        if (amount && bytes + amount > view.y0) {
          out.add(k, left, right, height - (low - view.y0) * scale, height - (bytes + amount - view.y0) * scale, -1, data.leftOutCount[rest], amount, bytes, 0);
        }
      }
    }
    return { rectangles: out, outline: outline, moments: moments, lefts: lefts };
  };

  /** What lies at a moment and so many bytes up: exact, whatever is drawn together. Position −1: nothing or left out. */
  canvas.pick = function (data, moment, bytes) {
    let total = 0;
    const until = canvas.firstAbove(data.start, moment);
    for (let j = 0; j < until; j++) {
      if (data.end[j] <= moment) continue;
      if (bytes < total + data.size[j]) return { id: bytes < total ? -1 : j, bottom: total, total: total };
      total += data.size[j];
    }
    return { id: -1, bottom: total, total: total };
  };
})();
