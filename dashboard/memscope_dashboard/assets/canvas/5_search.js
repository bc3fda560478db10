// What is searched for: words in owners, lines of code, categories and addresses, and comparisons such as size>1GiB.
(function () {
  const canvas = window.memscopeCanvas;
  /** @type {Record<string, number>} */
  const UNITS = { b: 1, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12, kib: 1024, mib: 1024 ** 2, gib: 1024 ** 3, tib: 1024 ** 4 };
  const COMPARISON = /^(size|life|start|end)(>=|<=|>|<|=)([\d.]+)\s*([kmgt]?i?b)?$/i;
  /** @type {Record<string, (a: number, b: number) => boolean>} */
  const TESTS = { ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "=": (a, b) => a === b };

  /** @param {Allocations} data @param {string} word @returns {((j: number) => boolean) | null} */
  function compared(data, word) {
    const match = COMPARISON.exec(word);
    if (!match) return null;
    const limit = Number(match[3]) * (UNITS[(match[4] || "b").toLowerCase()] || 1);
    const test = TESTS[match[2]];
    /** @type {Record<string, ColourOf>} */
    const of = {
      size: (j) => data.size[j],
      life: (j) => data.end[j] - data.start[j],
      start: (j) => data.start[j],
      end: (j) => data.end[j],
    };
    const value = of[match[1].toLowerCase()];
    return (j) => test(value(j), limit);
  }

  /** @param {Allocations} data @param {string} word @returns {(j: number) => boolean} */
  function named(data, word) {
    /** @param {string[]} texts */
    const has = (texts) => texts.map((text) => text.toLowerCase().includes(word));
    const [owners, sites, categories, streams] = [data.owners, data.sites, data.categories, data.streams].map(has);
    const isAddress = /^0x[0-9a-f]{3,}$/.test(word);
    return (j) =>
      owners[data.owner[j]] ||
      sites[data.site[j]] ||
      categories[data.category[j]] ||
      streams[data.stream[j]] ||
      (isAddress && canvas.addressText(data, j).startsWith(word));
  }

  /** The first word that looks like a comparison and is none; null where all are understood. */
  canvas.notUnderstood = (text) => text.split(/\s+/).find((word) => /[<>=]/.test(word) && !COMPARISON.test(word)) || null;

  /** Which allocations fit every word: one byte each; null where nothing is searched for. */
  canvas.search = function (data, text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return null;
    const tests = words.map((word) => compared(data, word) || named(data, word));
    return Uint8Array.from({ length: data.n }, (_, j) => (tests.every((test) => test(j)) ? 1 : 0));
  };

  /** Bytes × events of a range by a key, largest first: the mean bytes of each group over the range. */
  canvas.sumRange = function (data, from, to, keyOf) {
    /** @type {Map<string, number>} */
    const sums = new Map();
    for (let j = 0; j < data.n; j++) {
      const overlap = Math.min(data.end[j], to + 1) - Math.max(data.start[j], from);
      if (overlap <= 0) continue;
      const key = keyOf(j);
      sums.set(key, (sums.get(key) || 0) + data.size[j] * overlap);
    }
    const n = to - from + 1;
    return [...sums].map(([key, sum]) => ({ key: key, mean: sum / n })).sort((a, b) => b.mean - a.mean);
  };
})();
