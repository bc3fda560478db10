// The server's binary answers, and what is worked out of them once: see memscope_dashboard/canvas/packed.py.
(function () {
  const canvas = (window.memscopeCanvas = window.memscopeCanvas || /** @type {MemscopeCanvas} */ ({}));
  const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  const TWO_32 = 4294967296;

  canvas.unpack = function (buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    /** @type {Columns} */
    const columns = {};
    for (const [name, place] of Object.entries(/** @type {Unpacked<unknown>["header"]} */ (header).columns)) {
      columns[name] = new KINDS[place.kind](buffer, 4 + length + place.begin, place.length);
    }
    return { header: header, columns: columns };
  };

  /** Integers of two halves as numbers, exact up to 2^53. */
  canvas.whole = function (columns, name) {
    const low = columns[name + "_low"];
    const high = columns[name + "_high"];
    return Float64Array.from(low, (value, i) => high[i] * TWO_32 + value);
  };

  /** Allocations, ordered by the moment at which they begin. */
  canvas.allocationsOf = function (buffer) {
    /** @type {Unpacked<AllocationsHeader>} */
    const { header, columns } = canvas.unpack(buffer);
    const n = columns.row.length;
    return {
      ...header,
      n: n,
      row: columns.row,
      start: columns.start,
      end: columns.end,
      size: canvas.whole(columns, "size"),
      addressLow: columns.address_low,
      addressHigh: columns.address_high,
      owner: columns.owner,
      site: columns.site,
      stream: columns.stream,
      category: columns.category,
      sample: columns.sample,
      leftOut: canvas.whole(columns, "left_out"),
      leftOutCount: columns.left_out_count,
      last: new Int32Array(n).fill(-1),
      active: activeOf(header, columns, canvas.whole(columns, "size")),
    };
  };

  /** Bytes in use at each moment of the range, without what is left out: for finding peaks between two pixels.
   * @param {AllocationsHeader} header @param {Columns} columns @param {Float64Array} size */
  function activeOf(header, columns, size) {
    const { low, high } = header;
    const total = new Float64Array(high - low + 2);
    for (let j = 0; j < columns.row.length; j++) {
      total[Math.max(columns.start[j] - low, 0)] += size[j];
      if (columns.end[j] <= high) total[columns.end[j] - low] -= size[j];
    }
    for (let i = 1; i < total.length; i++) total[i] += total[i - 1];
    return total;
  }

  /** What was reserved: the first moment of each part and the most in it; empty where it was not recorded. */
  canvas.seriesOf = function (buffer) {
    /** @type {Unpacked<SeriesHeader>} */
    const { header, columns } = canvas.unpack(buffer);
    const none = columns.begin === undefined;
    return {
      ...header,
      begin: none ? new Uint32Array(0) : columns.begin,
      reserved: none ? new Float64Array(0) : canvas.whole(columns, "reserved"),
    };
  };

  /** The position of the first value above a limit in an ascending column. */
  canvas.firstAbove = function (column, limit) {
    let low = 0;
    let high = column.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (column[middle] <= limit) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  canvas.addressText = function (data, j) {
    const address = (BigInt(data.addressHigh[j]) << 32n) | BigInt(data.addressLow[j]);
    return "0x" + address.toString(16);
  };

  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
  canvas.bytes = function (n) {
    let power = 0;
    for (let value = Math.abs(n); value >= 1024 && power < 4; value /= 1024) power++;
    return power ? `${(n / 1024 ** power).toFixed(1)} ${UNITS[power]}` : `${n} B`;
  };
  canvas.count = (n) => n.toLocaleString("en-US");
})();
