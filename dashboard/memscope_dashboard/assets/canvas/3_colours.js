// What the colour of an allocation says: one number 0xRRGGBB for each position.
(function () {
  const canvas = window.memscopeCanvas;
  // Viridis, nine stops.
  const SCALE = [0x440154, 0x472d7b, 0x3b528b, 0x2c728e, 0x21918c, 0x28ae80, 0x5ec962, 0xaddc30, 0xfde725];

  /** @param {string} text */
  const hex = (text) => parseInt(text.trim().slice(1), 16);
  /** @param {number} a @param {number} b @param {number} t */
  const mixed = (a, b, t) => {
    /** @param {number} shift */
    const part = (shift) => Math.round(((a >> shift) & 255) * (1 - t) + ((b >> shift) & 255) * t) << shift;
    return part(16) | part(8) | part(0);
  };
  /** @param {number} t */
  const onScale = (t) => {
    const at = Math.min(Math.max(t, 0), 0.999) * (SCALE.length - 1);
    return mixed(SCALE[Math.floor(at)], SCALE[Math.floor(at) + 1], at % 1);
  };

  /** A colour of its own for each text or number, the same one every time. @param {string | number} key @param {boolean} isDark */
  function hashed(key, isDark) {
    let h = 2166136261;
    for (const character of String(key)) h = Math.imul(h ^ character.charCodeAt(0), 16777619);
    h = Math.imul(h ^ (h >>> 15), 2246822507);
    h ^= h >>> 13;
    const hue = (h >>> 0) % 360;
    const saturation = 0.38 + (((h >>> 9) >>> 0) % 30) / 100;
    const lightness = (isDark ? 0.5 : 0.46) + (((h >>> 17) >>> 0) % 20) / 100;
    const chroma = saturation * Math.min(lightness, 1 - lightness);
    /** @param {number} n */
    const channel = (n) => {
      const k = (n + hue / 30) % 12;
      return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    };
    return (channel(0) << 16) | (channel(8) << 8) | channel(4);
  }

  /** @param {string[]} texts @param {Column} codes @param {boolean} isDark @param {number} none @returns {ColourOf} */
  const byText = (texts, codes, isDark, none) => {
    const colours = texts.map((text) => (text ? hashed(text, isDark) : none));
    return (j) => colours[codes[j]];
  };

  canvas.COLOURS = {
    category: "category",
    module: "module",
    site: "line of code",
    identity: "each its own",
    size: "size",
    age: "how long it lives",
    stream: "stream",
  };

  canvas.isColouring = /** @type {MemscopeCanvas["isColouring"]} */ ((name) => Object.hasOwn(canvas.COLOURS, name));

  /** Where most has no category, each allocation gets its own colour: a trace without stacks still tells its story. */
  canvas.usualColour = function (data) {
    const unknown = data.categories.indexOf("unknown");
    let all = 0;
    let of = 0;
    for (let j = 0; j < data.n; j++) {
      const area = data.size[j] * (data.end[j] - data.start[j]);
      all += area;
      if (data.category[j] === unknown) of += area;
    }
    return of > 0.5 * all ? "identity" : "category";
  };

  /** @param {number} rgb */
  const text = (rgb) => "#" + rgb.toString(16).padStart(6, "0");

  /**
   * What colours stand for: names and colours (categories in their order, others by bytes × events, most first), or the
   * two ends of a scale.
   * Null where each allocation has its own.
   */
  canvas.legendOf = function (data, by, style, isDark) {
    if (by === "identity") return null;
    if (by === "size" || by === "age") {
      /** @param {Float64Array} values */
      const n = (values) => values.reduce((most, value) => Math.max(most, value), 0);
      const most = by === "size" ? canvas.bytes(n(data.size)) : `${canvas.count(1 + data.high - data.low)} events`;
      return { ends: [by === "size" ? "512 B" : "1 event", most], colours: SCALE.map(text) };
    }
    /** @type {Record<"category" | "module" | "site" | "stream", [string[], Column]>} */
    const columns = { category: [data.categories, data.category], module: [data.modules, data.owner], site: [data.sites, data.site], stream: [data.streams, data.stream] };
    const [names, codes] = columns[by];
    const colourOf = canvas.colourOf(data, by, style, isDark);
    const found = new Map();
    for (let j = 0; j < data.n; j++) {
      const name = names[codes[j]] || "not recorded";
      const one = found.get(name) || { name: name.replace("_", " "), colour: text(colourOf(j)), area: 0 };
      one.area += data.size[j] * (data.end[j] - data.start[j]);
      found.set(name, one);
    }
    const all = [...found.values()];
    const order = data.categories.map((name) => name.replace("_", " "));
    const isFixed = by === "category";
    return { names: all.sort((a, b) => (isFixed ? order.indexOf(a.name) - order.indexOf(b.name) : b.area - a.area)) };
  };

  canvas.colourOf = function (data, by, style, isDark) {
    const none = hex(style.getPropertyValue("--ms-row-unknown"));
    if (by === "category") {
      const colours = data.categories.map((name) => hex(style.getPropertyValue("--ms-row-" + name)));
      return (j) => colours[data.category[j]];
    }
    if (by === "module") return byText(data.modules, data.owner, isDark, none);
    if (by === "site") return byText(data.sites, data.site, isDark, none);
    if (by === "stream") return byText(data.streams, data.stream, isDark, none);
    if (by === "size") {
      /** @param {number} n */
      const log = (n) => Math.log2(Math.max(n, 512) / 512);
      let most = 1;
      for (let j = 0; j < data.n; j++) most = Math.max(most, data.size[j]);
      return (j) => onScale(log(data.size[j]) / Math.max(log(most), 1));
    }
    if (by === "age") {
      const most = Math.log2(2 + data.high - data.low);
      return (j) => onScale(Math.log2(1 + data.end[j] - data.start[j]) / most);
    }
    return (j) => hashed(data.row[j], isDark);
  };
})();
