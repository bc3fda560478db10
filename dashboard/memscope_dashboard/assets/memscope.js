// The few things that must answer without asking the server: the colour scheme, the scrubber's drag, the address bar.
window.dash_clientside = Object.assign({}, window.dash_clientside, {
  memscope: {
    // The scheme kept by the browser, else the system's; a click on the toggle turns it over.
    /** @param {number | undefined} clicks @param {string | null} kept */
    scheme: function (clicks, kept) {
      const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      let scheme = kept || system;
      if (clicks) scheme = scheme === "dark" ? "light" : "dark";
      return [scheme, clicks ? scheme : window.dash_clientside.no_update, scheme];
    },

    // While the handle is dragged the moment follows at most ten times a second, and always ends where it stops.
    /** @param {number | null | undefined} index @param {PageMoment | null} moment @param {{ first: number } | null} bounds */
    scrub: function (index, moment, bounds) {
      const drag = (window.memscopeDrag = window.memscopeDrag || { last: 0, timer: undefined });
      const none = window.dash_clientside.no_update;
      if (index === undefined || index === null || !moment || !bounds) return none;
      const event = index === 0 ? -1 : bounds.first + index - 1;
      clearTimeout(drag.timer);
      if (event === moment.event) return none;
      const wait = Math.max(0, 100 - (Date.now() - drag.last));
      drag.timer = setTimeout(function () {
        drag.last = Date.now();
        window.dash_clientside.set_props("jump", { data: { event: event, from: "scrubber" } });
      }, wait);
      return none;
    },

    // The table of allocations forgets its rows and asks for those in sight again.
    askAgain: function () {
      window.dash_ag_grid.getApiAsync("allocations-grid").then(function (api) {
        if (!api.isDestroyed()) api.purgeInfiniteCache();
      });
      return window.dash_clientside.no_update;
    },

    // The line of the moment is a picture's first shape.
    /** @param {object | null} line @param {{ layout?: { shapes?: object[] } } | null} figure */
    moveLine: function (line, figure) {
      if (!line || !figure || !figure.layout) return window.dash_clientside.no_update;
      const shapes = [line].concat((figure.layout.shapes || []).slice(1));
      return { ...figure, layout: { ...figure.layout, shapes: shapes } };
    },

    // A click on a box of the flame graph is answered by the server: plotly's own zoom has only what is drawn.
    hearFlame: function () {
      const none = window.dash_clientside.no_update;
      /** @param {number} tries */
      const attach = function (tries) {
        /** @type {PlotlyElement | null} */
        const graph = document.querySelector("#flame-graph .js-plotly-plot");
        if (!graph || !graph.on) {
          if (tries) setTimeout(() => attach(tries - 1), 50);
          return;
        }
        if (graph.memscopeHears) return;
        graph.memscopeHears = true;
        graph.on("plotly_icicleclick", function (event) {
          const trace = graph.data[0];
          const meta = graph.layout.meta;
          let box = trace.ids.indexOf(event.points[0].id);
          if (box < 0 || (box > 0 && trace.customdata[box] === null)) return false;
          // The first box leads one level up; any other to itself.
          /** @type {(number | null)[]} */
          const below = [];
          for (; box > 0; box = trace.ids.indexOf(trace.parents[box])) below.unshift(trace.customdata[box]);
          const path = below.length ? meta.path.concat(below) : meta.path.slice(0, -1);
          window.dash_clientside.set_props("pin", { data: null });
          window.dash_clientside.set_props("narrow", { data: path.length ? { ...meta, path: path } : null });
          return false;
        });
      };
      attach(100);
      return none;
    },

    // A finding's link leads to another page: what it pins is in the element's id, and nothing is waited for.
    pinFinding: function () {
      const context = window.dash_clientside.callback_context;
      const id = context.triggered_id;
      const isClick = context.triggered.some((change) => change.value);
      return isClick && id && id.pin ? JSON.parse(id.pin) : window.dash_clientside.no_update;
    },

    // A neighbour, or one of a site's allocations, is pinned; what is known of it follows.
    /** @param {unknown} _clicks @param {PageMoment | null} moment */
    pinRow: function (_clicks, moment) {
      const context = window.dash_clientside.callback_context;
      const id = context.triggered_id;
      const isClick = context.triggered.some((change) => change.value);
      if (!isClick || !id || !moment) return window.dash_clientside.no_update;
      return { trace: moment.trace, device: moment.device, row: id.row };
    },

    /** @type {(...of: Parameters<MemscopeCanvas["follow"]>) => unknown} */
    canvas: function (subject, scheme, moment, pin) {
      window.memscopeCanvas.follow(subject, scheme, moment, pin);
      return window.dash_clientside.no_update;
    },

    /** @param {number | undefined} clicks */
    unpin: function (clicks) {
      return clicks ? null : window.dash_clientside.no_update;
    },

    // What the comparison shows is kept for the address; what is usual is left out of it.
    /**
     * @param {{ a: string, b: string, at_a: string, at_b: string } | null} pair @param {string} pic
     * @param {string} measure @param {string} by @param {string} show @param {string} kind @param {boolean} own
     * @param {number | null} focus @param {number | string | null} row @param {KeptFields | null} kept
     */
    keepCompare: function (pair, pic, measure, by, show, kind, own, focus, row, kept) {
      if (!pair) return window.dash_clientside.no_update;
      /** @type {Record<string, unknown>} */
      const fields = { a: pair.a, b: pair.b };
      if (pair.at_a !== "peak") fields.at_a = pair.at_a;
      if (pair.at_b !== "peak") fields.at_b = pair.at_b;
      /** @type {Record<string, string>} */
      const usual = { pic: "category", measure: "allocated", by: "holder", show: "all", kind: "calls" };
      for (const [name, value] of Object.entries({ pic, measure, by, show, kind })) {
        if (value && value !== usual[name]) fields[name] = value;
      }
      if (own === false) fields.own = "no";
      if (focus) fields.focus = focus;
      if (row !== null && row !== undefined) fields.row = row;
      return { ...(kept || {}), compare: fields };
    },

    // So is what the what-if view applies, and for which card.
    /** @param {Record<string, unknown> | null} asked @param {KeptFields | null} kept */
    keepWhatIf: function (asked, kept) {
      if (!asked) return window.dash_clientside.no_update;
      const fields = Object.fromEntries(Object.entries(asked).filter(([, value]) => value));
      return { ...(kept || {}), whatif: fields };
    },

    // A click on a box of the comparison's flame graph leads to it, one on the first box a level up.
    hearCompare: function () {
      /** @param {number} tries */
      const attach = function (tries) {
        /** @type {PlotlyElement | null} */
        const graph = document.querySelector("#compare-flame .js-plotly-plot");
        if (!graph || !graph.on) {
          if (tries) setTimeout(() => attach(tries - 1), 50);
          return;
        }
        if (graph.memscopeHears) return;
        graph.memscopeHears = true;
        graph.on("plotly_icicleclick", function (event) {
          const trace = graph.data[0];
          const box = trace.ids.indexOf(event.points[0].id);
          const node = box === 0 ? graph.layout.meta.above : trace.customdata[box];
          if (box >= 0 && typeof node === "number" && node >= 0) window.dash_clientside.set_props("compare-focus", { data: node });
          return false;
        });
      };
      attach(100);
      return window.dash_clientside.no_update;
    },

    // The address shows view and moment, and the navigation keeps the moment; history is not filled by scrubbing.
    // What a view shows beside is in the address, too: the canvas says it itself, others keep it in a store.
    /**
     * @param {PageMoment | null} moment @param {string | null} path
     * @param {KeptFields | null} kept @param {string[]} hrefs
     */
    address: function (moment, path, kept, hrefs) {
      const n = hrefs.length;
      if (!moment) return [hrefs, Array(n).fill(false)];
      const fields = new URLSearchParams();
      for (const [name, value] of Object.entries({ trace: moment.trace, device: moment.device, event: moment.event })) {
        if (value !== null && value !== undefined) fields.set(name, String(value));
      }
      const bareSearch = "?" + fields.toString();
      const more = kept || {};
      const view = (path || "").replace(/^\/|\/$/g, "");
      const inAddress = new URLSearchParams(window.location.search);
      /** @type {Iterable<[string, unknown]>} */
      let added = [];
      if (view === "canvas") {
        const drawn = window.memscopeCanvas.state();
        added = drawn && window.memscopeCanvas.isOf(moment) ? Object.entries(window.memscopeCanvas.fields()) : inAddress;
      } else if (more[view]) {
        added = Object.entries(more[view]);
      } else if (view === "compare" || view === "whatif") {
        added = inAddress;
      }
      for (const [name, value] of added) if (!fields.has(name)) fields.append(name, String(value));
      const search = "?" + fields.toString();
      if (window.location.search !== search) {
        window.history.replaceState(window.history.state, "", window.location.pathname + search);
      }
      const first = path === "/" || !path;
      const bare = hrefs.map((href) => href.split("?")[0]);
      /** @param {string} href */
      const searchOf = (href) => {
        const own = more[href.slice(1)];
        if (!own) return bareSearch;
        const texts = Object.entries(own).map(([name, value]) => [name, String(value)]);
        return bareSearch + "&" + new URLSearchParams(texts).toString();
      };
      return [bare.map((href) => href + searchOf(href)), bare.map((href, i) => (first ? i === 0 : href === path))];
    },
  },
});

// A strategy in the replay view's selection: its name, and below it what it is.
window.dashMantineFunctions = Object.assign({}, window.dashMantineFunctions, {
  /** @param {{ option: { label: string, summary: string } }} drawn */
  strategyOption: function ({ option }) {
    const make = window.React.createElement;
    const name = make("div", { className: "option-name", key: "name" }, option.label);
    return make("div", null, [name, make("div", { className: "option-summary", key: "summary" }, option.summary)]);
  },
});

// The row under the pointer, or with the focus, is the curve that stands out.
(function () {
  /** @type {string | undefined} */
  let shown;
  /** @param {HTMLElement | null} row */
  function show(row) {
    const key = row ? row.dataset.curve : undefined;
    /** @type {PlotlyElement | null} */
    const graph = document.querySelector("#replay-graph .js-plotly-plot");
    if (key === shown || !graph || !graph.data || !window.Plotly) return;
    shown = key;
    const known = graph.data.some((trace) => trace.meta === key);
    window.Plotly.restyle(graph, { opacity: graph.data.map((trace) => (!known || trace.meta === key ? 1 : 0.15)) });
  }
  for (const kind of ["mouseover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      if (event.target instanceof Element) show(event.target.closest("tr[data-curve]"));
    });
  }
})();

// Plotly looks for what is under the pointer at most every 50 ms, and not while a button is down: a press that comes
// sooner after a movement, as a tap does, makes it forget what was found before, and it hears no click or one of where
// the pointer was. Such a press waits, and what follows it, until Plotly has looked at where it is.
(function () {
  const LOOKED_MS = 60;
  let movedAt = 0;
  /** @type {MouseEvent[] | null} */
  let waiting = null;
  let isAgain = false;
  /** @param {MouseEvent} event */
  function later(event) {
    if (isAgain) return;
    if (!waiting) {
      const now = performance.now();
      const since = now - movedAt;
      if (event.type === "mousemove") movedAt = now;
      const isOnPlot = event.target instanceof Element && event.target.closest(".js-plotly-plot .nsewdrag");
      if (event.type !== "mousedown" || !isOnPlot || since >= LOOKED_MS) return;
      waiting = [];
      setTimeout(again, LOOKED_MS);
    }
    event.stopImmediatePropagation();
    waiting.push(event);
  }
  function again() {
    const events = waiting || [];
    waiting = null;
    isAgain = true;
    for (const event of events) event.target?.dispatchEvent(new MouseEvent(event.type, event));
    isAgain = false;
  }
  for (const kind of /** @type {const} */ (["mousedown", "mousemove", "mouseup"])) window.addEventListener(kind, later, true);
})();
