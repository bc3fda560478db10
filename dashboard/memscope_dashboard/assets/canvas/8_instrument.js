// The instrument: one picture of every allocation over events, moved, searched and pinned without asking the server.
(function () {
  const canvas = window.memscopeCanvas;
  /** @type {[Projection, string][]} */
  const PROJECTIONS = [
    ["time", "over events"],
    ["address", "by address"],
  ];

  /** The elements under a root. @param {HTMLElement} root @param {() => Instrument} made whom they ask, once it is there */
  function elements(root, made) {
    const bar = canvas.element("div", "canvas-bar", root);
    const projections = canvas.element("div", "canvas-switch", bar);
    projections.setAttribute("role", "group");
    projections.setAttribute("aria-label", "Projection");
    const projectionButtons = PROJECTIONS.map(([name, text]) => {
      const one = canvas.button(projections, text, `${text} (x)`, () => made().setProjection(name));
      one.dataset.projection = name;
      return one;
    });
    const colour = canvas.element("label", "canvas-field", bar, "colour");
    const colourSelect = canvas.element("select", "canvas-select", colour);
    for (const [name, text] of Object.entries(canvas.COLOURS)) {
      const option = canvas.element("option", null, colourSelect, text);
      option.value = name;
    }
    colourSelect.addEventListener("change", () => canvas.isColouring(colourSelect.value) && made().setColour(colourSelect.value));
    const searchInput = canvas.element("input", "canvas-search", bar);
    searchInput.type = "search";
    searchInput.placeholder = "search: size>1GiB life<10";
    searchInput.setAttribute("aria-label", "Search all allocations");
    searchInput.addEventListener("input", () => made().setFind(searchInput.value));
    searchInput.addEventListener("keydown", (event) => {
      if (event.key === "Enter") made().showFound();
      if (event.key === "Escape") stage.focus();
    });
    const foundWords = canvas.element("span", "quiet small canvas-found", bar);
    foundWords.setAttribute("role", "status");
    const buttons = canvas.element("div", "canvas-buttons", bar);
    canvas.button(buttons, "fit", "Everything (f)", () => made().fit());
    const playButton = canvas.button(buttons, "play", "Play (Space)", () => made().play());
    canvas.button(buttons, "PNG", "Save the picture", () => made().savePng());
    canvas.button(buttons, "SVG", "Save the picture as shapes", () => made().saveSvg());
    canvas.button(buttons, "?", "What keys and mouse do", () => made().help());
    const problem = canvas.element("div", "canvas-problem small", root);
    problem.setAttribute("role", "status");
    const legend = canvas.element("div", "canvas-legend small", root);
    const stage = canvas.element("div", "canvas-stage", root);
    stage.tabIndex = 0;
    stage.setAttribute("role", "application");
    stage.setAttribute("aria-label", "Every allocation over events; ? lists the keys. The allocations view has them as a table.");
    const picture = canvas.element("canvas", "canvas-picture", stage);
    const furniture = canvas.element("canvas", "canvas-furniture", stage);
    const tip = canvas.element("div", "canvas-tip hidden", stage);
    const note = canvas.element("div", "canvas-note quiet", stage);
    const foot = canvas.element("div", "canvas-foot small", root);
    const wants2d = new URLSearchParams(location.search).get("surface") === "2d";
    const surface = canvas.surfaceOf(picture, wants2d);
    const pen = canvas.penOf(furniture);
    return {
      projectionButtons: projectionButtons,
      colourSelect: colourSelect,
      searchInput: searchInput,
      foundWords: foundWords,
      playButton: playButton,
      problem: problem,
      legend: legend,
      stage: stage,
      picture: picture,
      furniture: furniture,
      tip: tip,
      note: note,
      foot: foot,
      surface: surface,
      pen: pen,
    };
  }

  /** @param {HTMLElement} root */
  function instrumentOn(root) {
    /** @type {InstrumentFields} */
    const state = {
      ...elements(root, () => made),
      root: root,
      generation: 0,
      opened: null,
      openedKey: null,
      subject: null,
      scheme: null,
      moment: 0,
      pin: null,
      range: null,
      groupRangeBy: "category",
      colour: "category",
      find: "",
      nFound: null,
      paint: null,
      projection: "time",
      addresses: null,
      space: null,
      heldAddressView: null,
      momentData: null,
      keptBytes: 0,
      limits: "",
      frameMs: 0,
      thin: 1,
      drawn: null,
      isMoving: false,
      waiting: null,
      resting: 0,
      playing: null,
      telling: 0,
      toldAt: 0,
    };
    for (const part of Object.values(canvas.parts)) Object.defineProperties(state, Object.getOwnPropertyDescriptors(part));
    const made = /** @type {Instrument} */ (state);
    made.listen();
    new ResizeObserver(() => made.redraw()).observe(made.stage);
    return made;
  }

  /** @type {Instrument | null} */
  let instrument = null;

  document.addEventListener("keydown", (event) => {
    if (!instrument || !instrument.root.isConnected || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target instanceof Element ? event.target : null;
    if (target && target.closest("input, textarea, select, [role=slider], [role=combobox]")) return;
    if (event.key === " " && target && target.closest("button, a")) return;
    if (instrument.pressed(event)) event.preventDefault();
  });

  /** Whether what is drawn is of a trace and a device. */
  canvas.isOf = (moment) => instrument?.subject?.trace === moment.trace && instrument.subject.device === moment.device;

  canvas.fields = () => (instrument && instrument.root.isConnected ? instrument.fields() : {});

  /** What is drawn, for tests and for whoever builds on it. */
  canvas.state = function () {
    if (!instrument || !instrument.opened || !instrument.drawn) return null;
    const { view, drawn, data } = instrument;
    return {
      projection: instrument.projection,
      address_range: instrument.projection === "address" ? instrument.addressView : null,
      kept_bytes: instrument.projection === "address" ? instrument.keptBytes : null,
      x_range: [view.x0, view.x1],
      y_range: [view.y0, view.y1],
      n_rectangles: drawn.n,
      n_allocations: data.n,
      n_left_out: data.n_left_out,
      colour: instrument.colour,
      pin: instrument.pin ? instrument.pin.row : null,
      event: instrument.eventOf(instrument.moment),
      range: instrument.range,
      n_found: instrument.nFound,
      surface: instrument.surface.name,
      frame_ms: instrument.frameMs,
    };
  };

  /** Where an allocation is drawn at a moment, on the page: for tests that click on it. Null where it is not in sight. */
  canvas.placeOf = function (row, moment) {
    if (!instrument || !instrument.opened) return null;
    const { data } = instrument;
    const j = data.row.indexOf(row);
    if (j < 0 || data.start[j] > moment || data.end[j] <= moment) return null;
    let bottom = 0;
    for (let i = 0; i < j; i++) if (data.start[i] <= moment && data.end[i] > moment) bottom += data.size[i];
    const box = instrument.stage.getBoundingClientRect();
    return { x: box.left + instrument.toX(moment + 0.5), y: box.top + instrument.toY(bottom + data.size[j] / 2) };
  };

  /** @param {AddressSpace} space */
  function held(space) {
    /** @type {HeldBytes} */
    const bytes = { blocks: 0, segments: 0, n_segments: space.segments.length, n_stray: space.nStray, free_releasable: 0, free_pinned: 0, free_private_pools: 0 };
    for (const piece of space.pieces) bytes[piece.id < 0 ? canvas.HOLES[piece.hole] : "blocks"] += piece.size;
    for (const segment of space.segments) bytes.segments += segment.end - segment.begin;
    return bytes;
  }

  /** What the address space holds at the moment, for tests: bytes by kind. Null until it is drawn. */
  canvas.addressState = function () {
    const space = instrument && instrument.projection === "address" && instrument.addresses ? instrument.spaceNow() : null;
    return space && held(space);
  };

  /** The same at any moment. */
  canvas.addressAt = (moment) => (instrument && instrument.addresses ? held(canvas.addressSpace(instrument.whole, instrument.addresses, moment)) : null);

  /** Called by the page whenever what it looks at changes. */
  canvas.follow = function (subject, scheme, moment, pin) {
    const root = document.getElementById("canvas-root");
    if (!root || !subject || subject.device === null || !scheme) return;
    if (!instrument || instrument.root !== root) instrument = instrumentOn(root);
    const shown = instrument;
    if (shown.scheme !== scheme) {
      shown.scheme = scheme;
      setTimeout(() => shown.redraw(), 60); // the page's own colours follow
    }
    const opened = shown.open(subject);
    opened.then(() => moment && shown.heardMoment(moment.event, false));
    if (moment) shown.heardMoment(moment.event, true);
    shown.heardPin(pin);
  };
})();
