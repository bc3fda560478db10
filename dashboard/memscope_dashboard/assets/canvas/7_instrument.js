// The instrument: one picture of every allocation over events, moved, searched and pinned without asking the server.
(function () {
  const canvas = window.memscopeCanvas;
  const REST_MS = 220;
  const SLOW_MS = 30;
  const PLAY_MS = 8000;
  const HELP = [
    ["W S", "zoom in and out"],
    ["A D or ← →", "go left and right"],
    ["↑ ↓", "go up and down"],
    ["wheel", "zoom events at the pointer; with Shift bytes, with Ctrl both"],
    ["drag", "move the picture; with Shift select a range of events"],
    ["click", "pin an allocation; below the picture choose the moment"],
    ["double click", "show an allocation from its beginning to its end"],
    ["f v", "fit everything; fit the bytes of what is in sight"],
    ["p o", "go to the peak, to the next out-of-memory error"],
    ["j k", "next and previous event"],
    ["[ ]", "previous and next step"],
    ["x", "over events, by address"],
    ["Space", "play"],
    ["/", "search: words, size>1GiB, life<10; Enter shows what was found"],
    ["Esc", "unpin, end the range"],
    ["?", "this list"],
  ];

  function element(tag, className, parent, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text) made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  }

  function button(parent, text, title, does) {
    const made = element("button", "go", parent, text);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", does);
    return made;
  }

  class Instrument {
    constructor(root) {
      this.root = root;
      this.generation = 0;
      this.view = null;
      this.moment = 0;
      this.pin = null;
      this.range = null;
      this.found = null;
      this.find = "";
      this.colour = null;
      this.frameMs = 0;
      this.drawn = null;
      this.groupRangeBy = "category";
      this.projection = "time";
      this.addresses = null;
      this.build();
      new ResizeObserver(() => this.redraw()).observe(this.stage);
    }

    build() {
      const bar = element("div", "canvas-bar", this.root);
      const projections = element("div", "canvas-switch", bar);
      projections.setAttribute("role", "group");
      projections.setAttribute("aria-label", "Projection");
      this.projectionButtons = Object.entries({ time: "over events", address: "by address" }).map(([name, text]) => {
        const one = button(projections, text, `${text} (x)`, () => this.setProjection(name));
        one.dataset.projection = name;
        return one;
      });
      const colour = element("label", "canvas-field", bar, "colour");
      this.colourSelect = element("select", "canvas-select", colour);
      for (const [name, text] of Object.entries(canvas.COLOURS)) {
        const option = element("option", null, this.colourSelect, text);
        option.value = name;
      }
      this.colourSelect.addEventListener("change", () => this.setColour(this.colourSelect.value));
      this.searchInput = element("input", "canvas-search", bar);
      this.searchInput.type = "search";
      this.searchInput.placeholder = "search: size>1GiB life<10";
      this.searchInput.setAttribute("aria-label", "Search all allocations");
      this.searchInput.addEventListener("input", () => this.setFind(this.searchInput.value));
      this.searchInput.addEventListener("keydown", (event) => {
        if (event.key === "Enter") this.showFound();
        if (event.key === "Escape") this.stage.focus();
      });
      this.foundWords = element("span", "quiet small canvas-found", bar);
      this.foundWords.setAttribute("role", "status");
      const buttons = element("div", "canvas-buttons", bar);
      button(buttons, "fit", "Everything (f)", () => this.fit());
      this.playButton = button(buttons, "play", "Play (Space)", () => this.play());
      button(buttons, "PNG", "Save the picture", () => this.savePng());
      button(buttons, "SVG", "Save the picture as shapes", () => this.saveSvg());
      button(buttons, "?", "What keys and mouse do", () => this.help());
      this.legend = element("div", "canvas-legend small", this.root);
      this.stage = element("div", "canvas-stage", this.root);
      this.stage.tabIndex = 0;
      this.stage.setAttribute("role", "application");
      this.stage.setAttribute("aria-label", "Every allocation over events; ? lists the keys. The allocations view has them as a table.");
      this.picture = element("canvas", "canvas-picture", this.stage);
      this.furniture = element("canvas", "canvas-furniture", this.stage);
      this.tip = element("div", "canvas-tip hidden", this.stage);
      this.note = element("div", "canvas-note quiet", this.stage);
      this.foot = element("div", "canvas-foot small", this.root);
      const wants2d = new URLSearchParams(location.search).get("surface") === "2d";
      this.surface = canvas.surfaceOf(this.picture, wants2d);
      this.pen = this.furniture.getContext("2d");
      this.listen();
    }

    listen() {
      const at = (event) => {
        const box = this.stage.getBoundingClientRect();
        return { x: event.clientX - box.left, y: event.clientY - box.top };
      };
      let held = null;
      this.stage.addEventListener("wheel", (event) => {
        if (!this.view) return;
        event.preventDefault();
        const { x, y } = at(event);
        if (this.projection === "address") return this.zoomAddresses(Math.exp(event.deltaY * 0.0015), x, y, event.shiftKey);
        if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) return this.move(event.deltaX / this.plotWidth(), 0);
        const factor = Math.exp(event.deltaY * 0.0015);
        const isBoth = event.ctrlKey || event.metaKey;
        if (isBoth || !event.shiftKey) this.zoomX(factor, this.toMoment(x));
        if (isBoth || event.shiftKey) this.zoomY(factor, this.toBytes(y));
      }, { passive: false });
      this.stage.addEventListener("pointerdown", (event) => {
        if (!this.view || event.button) return;
        this.stage.setPointerCapture(event.pointerId);
        this.stage.focus({ preventScroll: true });
        const from = at(event);
        const isTime = this.projection === "time";
        const kind = !isTime ? "move" : from.y > this.plot().bottom ? "scrub" : event.shiftKey ? "range" : "move";
        held = { ...from, kind: kind, moved: 0, view: { ...(isTime ? this.view : this.addressView) } };
        if (kind === "scrub") this.setMoment(this.toMoment(from.x), true);
      });
      this.stage.addEventListener("pointermove", (event) => {
        const to = at(event);
        if (!held) return this.hover(to);
        held.moved = Math.max(held.moved, Math.abs(to.x - held.x) + Math.abs(to.y - held.y));
        if (held.kind === "scrub") this.setMoment(this.toMoment(to.x), true);
        else if (held.moved < 4) return;
        else if (held.kind === "range") this.setRange(this.toMoment(held.x), this.toMoment(to.x));
        else if (this.projection === "address") {
          const plot = this.plot();
          const du = ((held.x - to.x) / (plot.right - plot.left)) * (held.view.u1 - held.view.u0);
          const dv = ((held.y - to.y) / (plot.bottom - plot.top)) * (held.view.v1 - held.view.v0);
          this.showAddresses({ u0: held.view.u0 + du, u1: held.view.u1 + du, v0: held.view.v0 + dv, v1: held.view.v1 + dv });
        } else {
          const plot = this.plot();
          const dx = ((held.x - to.x) / (plot.right - plot.left)) * (held.view.x1 - held.view.x0);
          const dy = ((to.y - held.y) / (plot.bottom - plot.top)) * (held.view.y1 - held.view.y0);
          this.show({ x0: held.view.x0 + dx, x1: held.view.x1 + dx, y0: held.view.y0 + dy, y1: held.view.y1 + dy });
        }
        this.tip.classList.add("hidden");
      });
      this.stage.addEventListener("pointerup", (event) => {
        if (held && held.moved < 4 && held.kind === "move") this.choose(at(event));
        held = null;
      });
      this.stage.addEventListener("pointerleave", () => this.tip.classList.add("hidden"));
      this.stage.addEventListener("dblclick", (event) => {
        const hit = this.under(at(event));
        if (hit && hit.id >= 0 && this.projection === "time") this.showLife(hit.id);
      });
    }

    // Which trace, and what is known of it

    async open(subject) {
      const key = `${subject.trace} ${subject.device}`;
      if (this.opened === key) return;
      this.opened = key;
      const isFirst = !this.subject;
      this.subject = subject;
      const generation = ++this.generation;
      this.whole = this.detail = this.series = this.view = this.addresses = this.space = this.heldAddressView = this.momentData = null;
      this.note.textContent = "";
      try {
        const run = await this.ask("run", {});
        if (generation !== this.generation) return;
        const range = { low: 0, high: run.n_events };
        const [allocations, series] = await Promise.all([this.ask("allocations", range), this.ask("series", range)]);
        if (generation !== this.generation) return;
        this.run = run;
        this.wholeSeries = this.series = canvas.seriesOf(series);
        this.whole = canvas.allocationsOf(allocations);
      } catch (error) {
        if (generation === this.generation) this.note.textContent = String(error.message || error);
        return;
      }
      if (!this.whole.n) this.note.textContent = "No allocation was recorded: there is nothing to draw.";
      this.restore(isFirst);
      this.say();
      this.redraw();
    }

    async ask(what, fields) {
      const query = new URLSearchParams({ trace: this.subject.trace, device: this.subject.device, ...fields });
      const response = await fetch(`/canvas/${what}?${query}`);
      if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error || `the server answered ${response.status}`);
      return what === "run" ? response.json() : response.arrayBuffer();
    }

    get data() {
      const detail = this.detail;
      const covers = detail && detail.low <= Math.max(Math.floor(this.view.x0), 0) && detail.high >= Math.min(Math.ceil(this.view.x1) - 1, this.run.n_events);
      return covers ? detail : this.whole;
    }

    // What the address says

    /** Of the trace that the page was opened with; another one is seen whole, whatever was seen of the one before. */
    restore(isFirst) {
      const fields = new URLSearchParams(isFirst ? location.search : "");
      const number = (name) => (fields.get(name) === null || isNaN(fields.get(name)) ? null : Number(fields.get(name)));
      const [x0, x1, y0, y1] = ["x0", "x1", "y0", "y1"].map(number);
      this.view = this.fitted();
      if (x0 !== null && x1 !== null && x0 < x1) this.view = this.kept({ ...this.view, x0: x0, x1: x1 });
      if (y0 !== null && y1 !== null && y0 < y1) this.view = this.kept({ ...this.view, y0: y0, y1: y1 });
      const colour = fields.get("colour");
      this.setColour(canvas.COLOURS[colour] ? colour : canvas.usualColour(this.whole));
      this.searchInput.value = fields.get("find") || "";
      this.setFind(this.searchInput.value);
      const [r0, r1, pin] = [number("r0"), number("r1"), number("pin")];
      if (r0 !== null && r1 !== null) this.setRange(r0, r1);
      else this.setRange(null);
      if (pin !== null && !this.pin) this.setPin(pin);
      this.setProjection((isFirst ? fields.get("projection") : this.projection) === "address" ? "address" : "time");
    }

    /** What of the state the address shall hold besides trace, device and event. */
    fields() {
      if (!this.view || !this.whole) return {};
      const fields = {};
      const fitted = this.fitted();
      const { x0, x1, y0, y1 } = this.view;
      if (x0 !== fitted.x0 || x1 !== fitted.x1) Object.assign(fields, { x0: +x0.toFixed(2), x1: +x1.toFixed(2) });
      if (y0 !== fitted.y0 || y1 !== fitted.y1) Object.assign(fields, { y0: Math.round(y0), y1: Math.round(y1) });
      if (this.colour !== canvas.usualColour(this.whole)) fields.colour = this.colour;
      if (this.find) fields.find = this.find;
      if (this.range) Object.assign(fields, { r0: this.range[0], r1: this.range[1] });
      if (this.pin) fields.pin = this.pin.row;
      if (this.projection !== "time") fields.projection = this.projection;
      return fields;
    }

    // The address space

    async setProjection(name) {
      this.projection = name;
      for (const one of this.projectionButtons) one.setAttribute("aria-pressed", String(one.dataset.projection === name));
      this.note.textContent = "";
      const generation = this.generation;
      if (name === "address" && this.addresses === null && this.subject) {
        this.addresses = undefined;
        try {
          const buffer = await this.ask("segments", {});
          if (generation !== this.generation) return;
          this.addresses = canvas.segmentsOf(buffer);
        } catch (error) {
          this.addresses = null;
          this.note.textContent = String(error.message || error);
        }
      }
      if (this.run) this.sayRange();
      this.redraw();
    }
    get addressView() {
      return this.heldAddressView || { u0: 0, u1: 1, v0: 0, v1: Math.max(this.space ? this.space.rows : 1, 4) };
    }
    showAddresses(view) {
      const rows = Math.max(this.space.rows, 4);
      const [width, height] = [Math.min(Math.max(view.u1 - view.u0, 1e-5), 1), Math.min(Math.max(view.v1 - view.v0, 0.5), rows)];
      const u0 = Math.min(Math.max(view.u0, 0), 1 - width);
      const v0 = Math.min(Math.max(view.v0, 0), rows - height);
      const isWhole = width === 1 && height === rows;
      this.heldAddressView = isWhole ? null : { u0: u0, u1: u0 + width, v0: v0, v1: v0 + height };
      this.redraw(true);
    }
    zoomAddresses(factor, x, y, isFlat) {
      if (!this.space) return;
      const { u, v } = this.toAddress(x, y);
      const { u0, u1, v0, v1 } = this.addressView;
      const tall = isFlat ? 1 : factor;
      this.showAddresses({ u0: u - (u - u0) * factor, u1: u + (u1 - u) * factor, v0: v - (v - v0) * tall, v1: v + (v1 - v) * tall });
    }
    toAddress(x, y) {
      const plot = this.plot();
      const { u0, u1, v0, v1 } = this.addressView;
      return { u: u0 + ((x - plot.left) / (plot.right - plot.left)) * (u1 - u0), v: v0 + ((y - plot.top) / (plot.bottom - plot.top)) * (v1 - v0) };
    }
    /** Every block of the moment: of long runs what is drawn together is asked for, moment by moment. */
    get addressData() {
      if (!this.whole.n_left_out) return this.whole;
      return this.momentData && this.momentData.low === this.moment ? this.momentData : null;
    }
    async askForMoment() {
      const { moment, generation } = this;
      const found = canvas.allocationsOf(await this.ask("allocations", { low: moment, high: moment }));
      if (generation !== this.generation || moment !== this.moment) return;
      this.momentData = found;
      this.paint = null;
      this.redraw();
    }
    /** The address space at the moment, worked out once for each. */
    spaceNow() {
      const { addresses, moment } = this;
      const data = this.addressData;
      if (!addresses || !data) return null;
      if (!this.space || this.space.moment !== moment || this.space.of !== data) {
        this.space = canvas.addressSpace(data, addresses, moment);
        Object.assign(this.space, { moment: moment, of: data });
      }
      return this.space;
    }
    drawAddresses(wide, high, width, height, ratio, plot) {
      const space = this.spaceNow();
      if (!space) return { rectangles: new canvas.Rectangles(), colours: new Uint32Array(0) };
      const data = space.of;
      if (!space.segments.length) this.note.textContent = this.addresses.is_known ? "Nothing was reserved at this moment." : "Segments were not recorded, so where blocks lie is not measured.";
      else this.note.textContent = "";
      const pinned = this.pin ? data.row.indexOf(this.pin.row) : -1;
      const placed = canvas.placeAddresses(space, this.addressView, wide, high, pinned);
      const paint = this.painted(data);
      const style = getComputedStyle(document.documentElement);
      const free = canvas.HOLES.map((name) => canvas.packedColour(parseInt(style.getPropertyValue(`--ms-row-${name}`).trim().slice(1), 16), 1));
      const { rectangles, holes } = placed;
      const colours = Uint32Array.from({ length: rectangles.n }, (_, i) => (rectangles.id[i] < 0 ? free[holes[i]] : paint[rectangles.id[i]]));
      this.surface.draw(rectangles, colours, wide, high, ratio, 1);
      this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      canvas.furnishAddresses(this.pen, { view: this.addressView, plot: plot, width: width, height: height, style: style, space: space, outline: placed.outline, ties: placed.ties });
      this.keptBytes = placed.keptBytes;
      return { rectangles: rectangles, colours: colours };
    }

    // The view

    plot() {
      const { left, right, top, bottom } = canvas.MARGIN;
      if (this.projection === "address") return { left: 4, right: this.stage.clientWidth - 4, top: 4, bottom: this.stage.clientHeight - 4 };
      const strips = this.run ? canvas.stripsHeight(this.run) : 0;
      return { left: left, right: this.stage.clientWidth - right, top: top, bottom: this.stage.clientHeight - bottom - strips };
    }
    plotWidth() {
      const plot = this.plot();
      return plot.right - plot.left;
    }
    fitted() {
      const { n_events, active_peak_bytes, reserved_peak_bytes } = this.run;
      const top = Math.max(active_peak_bytes, reserved_peak_bytes || 0, 1);
      return { x0: 0, x1: n_events + 1, y0: 0, y1: Math.ceil(top * 1.04) };
    }
    kept(view) {
      const fitted = this.fitted();
      const width = Math.min(Math.max(view.x1 - view.x0, 4), fitted.x1);
      const height = Math.min(Math.max(view.y1 - view.y0, 512), fitted.y1);
      const x0 = Math.min(Math.max(view.x0, 0), fitted.x1 - width);
      const y0 = Math.min(Math.max(view.y0, 0), fitted.y1 - height);
      return { x0: x0, x1: x0 + width, y0: y0, y1: y0 + height };
    }
    show(view) {
      this.view = this.kept(view);
      this.redraw(true);
    }
    fit() {
      this.heldAddressView = null;
      if (this.run) this.show(this.fitted());
    }
    fitBytes() {
      const { data, view } = this;
      const [low, high] = [Math.max(Math.floor(view.x0), data.low), Math.min(Math.ceil(view.x1), data.high)];
      let most = 1;
      for (let moment = low; moment <= high; moment++) most = Math.max(most, data.active[moment - data.low]);
      this.show({ ...view, y0: 0, y1: most * 1.04 });
    }
    zoomX(factor, at) {
      const { x0, x1 } = this.view;
      this.show({ ...this.view, x0: at - (at - x0) * factor, x1: at + (x1 - at) * factor });
    }
    zoomY(factor, at) {
      const { y0, y1 } = this.view;
      this.show({ ...this.view, y0: at - (at - y0) * factor, y1: at + (y1 - at) * factor });
    }
    move(dx, dy) {
      const { x0, x1, y0, y1 } = this.view;
      const [right, up] = [dx * (x1 - x0), dy * (y1 - y0)];
      this.show({ x0: x0 + right, x1: x1 + right, y0: y0 + up, y1: y1 + up });
    }
    reveal(moment) {
      const { x0, x1 } = this.view;
      if (moment >= x0 && moment < x1) return this.redraw();
      this.show({ ...this.view, x0: moment - (x1 - x0) / 2, x1: moment + (x1 - x0) / 2 });
    }
    toX(moment) {
      const plot = this.plot();
      return plot.left + ((moment - this.view.x0) / (this.view.x1 - this.view.x0)) * (plot.right - plot.left);
    }
    toY(bytes) {
      const plot = this.plot();
      return plot.bottom - ((bytes - this.view.y0) / (this.view.y1 - this.view.y0)) * (plot.bottom - plot.top);
    }
    toMoment(x) {
      const plot = this.plot();
      return this.view.x0 + ((x - plot.left) / (plot.right - plot.left)) * (this.view.x1 - this.view.x0);
    }
    toBytes(y) {
      const plot = this.plot();
      return this.view.y0 + ((plot.bottom - y) / (plot.bottom - plot.top)) * (this.view.y1 - this.view.y0);
    }

    // Moment, pin, range, search, colour

    eventOf(moment) {
      return moment === 0 ? -1 : this.run.first_event + moment - 1;
    }
    setMoment(moment, tells) {
      moment = Math.min(Math.max(Math.floor(moment), 0), this.run.n_events);
      if (moment === this.moment) return;
      this.moment = moment;
      this.redraw();
      if (!tells) return;
      clearTimeout(this.telling);
      const wait = Math.max(0, 120 - (performance.now() - (this.toldAt || 0)));
      this.telling = setTimeout(() => {
        this.toldAt = performance.now();
        window.dash_clientside.set_props("jump", { data: { event: this.eventOf(this.moment), from: "canvas" } });
      }, wait);
    }
    /** The page's moment: shown where it is, and where it was chosen elsewhere brought into sight. */
    heardMoment(event, isChosen) {
      if (!this.run) return;
      const moment = event < 0 ? 0 : event - this.run.first_event + 1;
      if (moment === this.moment || performance.now() - (this.toldAt || 0) < 400) return;
      this.moment = moment;
      if (this.view && isChosen) this.reveal(moment);
      else this.redraw();
    }
    setPin(row) {
      const pin = row === null ? null : { trace: this.subject.trace, device: this.subject.device, row: row };
      this.pin = pin;
      window.dash_clientside.set_props("pin", { data: pin });
      this.redraw();
    }
    heardPin(pin) {
      const isHere = pin && this.subject && pin.trace === this.subject.trace && pin.device === this.subject.device;
      this.pin = isHere ? pin : null;
      this.redraw();
    }
    setRange(from, to) {
      const last = this.run.n_events;
      const inside = (moment) => Math.min(Math.max(Math.floor(moment), 0), last);
      this.range = from === null ? null : [inside(Math.min(from, to)), inside(Math.max(from, to))];
      this.sayRange();
      this.redraw();
    }
    setColour(by) {
      this.colour = by;
      this.colourSelect.value = by;
      this.paint = null;
      this.redraw();
    }
    setFind(text) {
      this.find = text.trim();
      this.found = null;
      this.paint = null;
      this.redraw();
    }
    showFound() {
      const { data } = this;
      const hits = canvas.search(data, this.find);
      if (!hits) return;
      let [low, high] = [Infinity, -1];
      hits.forEach((is, j) => {
        if (is) [low, high] = [Math.min(low, data.start[j]), Math.max(high, data.end[j])];
      });
      if (high >= 0) this.show({ ...this.fitted(), x0: low - 0.02 * (high - low) - 1, x1: high + 0.02 * (high - low) + 1 });
      this.stage.focus();
    }
    showLife(j) {
      const { start, end } = this.data;
      const air = 0.1 * (end[j] - start[j]) + 1;
      this.show({ ...this.view, x0: start[j] - air, x1: end[j] + air });
    }

    // Under the pointer

    under({ x, y }) {
      const plot = this.plot();
      if (this.projection === "address") {
        if (!this.space || !this.drawn) return null;
        const { u, v } = this.toAddress(x, y);
        const piece = canvas.pickAddress(this.space, u, v);
        return piece && { id: piece.id, piece: piece, moment: this.moment };
      }
      if (!this.view || !this.whole || !this.drawn || x < plot.left || x > plot.right || y < plot.top || y > plot.bottom) return null;
      const { moments, lefts, coarse } = this.drawn;
      const column = canvas.firstAbove(lefts, ((x - plot.left) / this.plotWidth()) * coarse) - 1;
      if (column < 0) return null;
      return { ...canvas.pick(this.data, moments[column], this.toBytes(y)), moment: moments[column] };
    }
    hover(at) {
      const hit = this.under(at);
      this.tip.classList.toggle("hidden", !hit);
      if (!hit) return;
      this.tip.textContent = "";
      const line = (text, className) => text && element("div", className, this.tip, text);
      const data = this.projection === "address" ? this.space.of : this.data;
      if (hit.id >= 0) {
        const j = hit.id;
        line(`${canvas.bytes(data.size[j])} ${data.categories[data.category[j]].replace("_", " ")}`, "canvas-tip-head");
        line(data.owners[data.owner[j]]);
        line(data.sites[data.site[j]], "mono");
        const n = data.end[j] - data.start[j];
        line(`${data.end[j] > this.run.n_events ? "never freed" : `lives ${canvas.count(n)} events`}, ${data.streams[data.stream[j]]}`, "quiet");
      } else if (hit.piece) {
        line(`${canvas.bytes(hit.piece.size)} ${canvas.HOLE_WORDS[canvas.HOLES[hit.piece.hole]]}`, "canvas-tip-head");
        line(`in a segment of ${canvas.bytes(hit.piece.segment.end - hit.piece.segment.begin)}`, "quiet");
      } else if (data.n_left_out && this.toBytes(at.y) < hit.total + data.leftOut[canvas.firstAbove(data.sample, hit.moment) - 1]) {
        const k = canvas.firstAbove(data.sample, hit.moment) - 1;
        line(`${canvas.count(data.leftOutCount[k])} smaller, ${canvas.bytes(data.leftOut[k])}`, "canvas-tip-head");
        line("drawn together; zoom in to see each", "quiet");
      } else line(`${canvas.bytes(hit.total)} in use`, "canvas-tip-head");
      line(hit.moment ? `after event ${canvas.count(this.eventOf(hit.moment))}` : "before the first event", "quiet");
      const isRight = at.x > this.stage.clientWidth / 2;
      this.tip.style.left = isRight ? "" : `${at.x + 14}px`;
      this.tip.style.right = isRight ? `${this.stage.clientWidth - at.x + 14}px` : "";
      this.tip.style.top = `${Math.min(at.y + 10, this.stage.clientHeight - 110)}px`;
    }
    choose(at) {
      const hit = this.under(at);
      if (!hit) return;
      const data = this.projection === "address" ? this.space.of : this.data;
      this.setPin(hit.id >= 0 ? data.row[hit.id] : null);
    }

    // Words

    say() {
      const { n_left_out, n } = this.whole;
      this.limits = n_left_out
        ? `${canvas.count(n)} allocations are drawn one by one, ${canvas.count(n_left_out)} smaller ones together until you zoom in`
        : `all ${canvas.count(n)} allocations are drawn`;
      this.sayRange();
    }
    sayRange() {
      this.foot.textContent = "";
      if (this.projection === "address") {
        element("span", "quiet", this.foot, "Segments in rows, blocks in their colours; free memory is hatched, densely where blocks keep it from going back. Pin a block to see the holes that it keeps.");
        return;
      }
      if (!this.range || !this.whole) {
        element("span", "quiet", this.foot, `${this.limits || ""} · drawn with ${this.surface.name} · Shift and drag to sum a range · ? lists the keys`);
        return;
      }
      const { data } = this;
      const [from, to] = this.range;
      const keys = {
        category: (j) => data.categories[data.category[j]].replace("_", " "),
        module: (j) => data.modules[data.owner[j]] || "not recorded",
        line: (j) => data.sites[data.site[j]] || "not recorded",
      };
      const sums = canvas.sumRange(data, from, to, keys[this.groupRangeBy]);
      const total = sums.reduce((sum, one) => sum + one.mean, 0);
      const head = element("div", "canvas-range-head", this.foot);
      element("b", null, head, `after events ${canvas.count(this.eventOf(from))} to ${canvas.count(this.eventOf(to))}: ${canvas.bytes(total)} in use on average`);
      for (const by of Object.keys(keys)) {
        const one = button(head, `by ${by}`, "", () => {
          this.groupRangeBy = by;
          this.sayRange();
        });
        one.setAttribute("aria-pressed", String(by === this.groupRangeBy));
      }
      button(head, "✕", "End the range (Esc)", () => this.setRange(null));
      const list = element("ol", "canvas-range", this.foot);
      for (const { key, mean } of sums.slice(0, 6)) {
        const row = element("li", null, list);
        element("span", "num", row, canvas.bytes(mean)).title = `${mean.toFixed(1)} bytes`;
        element("span", "canvas-range-key", row, key).title = key;
      }
      if (sums.length > 6) element("li", "quiet", list, `${canvas.count(sums.length - 6)} more, ${canvas.bytes(sums.slice(6).reduce((sum, one) => sum + one.mean, 0))}`);
      if (data.n_left_out) element("div", "quiet", this.foot, "without the smaller ones that are drawn together");
    }
    help() {
      const before = this.stage.querySelector(".canvas-help");
      if (before) return before.remove();
      const box = element("div", "canvas-help panel", this.stage);
      box.setAttribute("role", "dialog");
      box.setAttribute("aria-label", "Keys");
      for (const [keys, does] of HELP) {
        const row = element("div", "canvas-help-row", box);
        element("kbd", "mono", row, keys);
        element("span", null, row, does);
      }
      button(box, "close", "", () => box.remove());
    }

    // Drawing

    redraw(isMoving) {
      this.tip.classList.add("hidden");
      if (isMoving) {
        this.isMoving = true;
        clearTimeout(this.resting);
      }
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.rest(), REST_MS);
      if (this.waiting) return;
      this.waiting = requestAnimationFrame(() => {
        this.waiting = null;
        this.draw();
      });
    }
    rest() {
      if (!this.view || !this.root.isConnected) return;
      if (this.isMoving) {
        this.isMoving = false;
        this.redraw();
      }
      this.refine();
      this.writeAddress();
    }
    writeAddress() {
      if (location.pathname.replace(/\/$/, "") !== "/canvas") return;
      const fields = new URLSearchParams(location.search);
      for (const name of ["x0", "x1", "y0", "y1", "colour", "find", "r0", "r1", "pin", "projection"]) fields.delete(name);
      for (const [name, value] of Object.entries(this.fields())) fields.set(name, value);
      history.replaceState(history.state, "", `${location.pathname}?${fields}`);
    }

    /** At rest: the allocations that were drawn together, and the reserved line event by event. */
    async refine() {
      const { view, run, whole, generation } = this;
      const low = Math.max(Math.floor(view.x0), 0);
      const high = Math.min(Math.ceil(view.x1), run.n_events);
      const { series } = this;
      const fits = series.low <= low && series.high >= high && (series.is_exact || series.high - series.low < 2.5 * (high - low));
      try {
        if (this.projection === "address") {
          if (!this.addressData) await this.askForMoment();
          return;
        }
        if (!fits) {
          const found = canvas.seriesOf(await this.ask("series", { low: low, high: high }));
          if (generation !== this.generation) return;
          this.series = found;
          this.redraw();
        }
        if (!whole.n_left_out || high - low > 0.6 * run.n_events) return;
        const detail = this.detail;
        if (detail && detail.low <= low && detail.high >= high && (!detail.n_left_out || detail.high - detail.low < 3 * (high - low))) return;
        const air = Math.ceil((high - low) / 2);
        const range = { low: Math.max(low - air, 0), high: Math.min(high + air, run.n_events) };
        const found = canvas.allocationsOf(await this.ask("allocations", range));
        if (generation !== this.generation) return;
        this.detail = found;
        this.paint = null;
        this.redraw();
      } catch (error) {
        this.note.textContent = String(error.message || error);
      }
    }

    sayLegend(legend) {
      this.legend.textContent = "";
      if (!legend) {
        element("span", "quiet", this.legend, "each allocation has a colour of its own");
        return;
      }
      if (legend.ends) {
        element("span", null, this.legend, legend.ends[0]);
        element("span", "canvas-scale", this.legend).style.background = `linear-gradient(90deg, ${legend.colours.join(",")})`;
        element("span", null, this.legend, legend.ends[1]);
        return;
      }
      for (const { name, colour } of legend.names.slice(0, 12)) {
        const one = element("span", "canvas-legend-name", this.legend);
        element("span", "canvas-swatch", one).style.background = colour;
        element("span", null, one, name).title = name;
      }
      const n = legend.names.length - 12;
      if (n > 0) element("span", "quiet", this.legend, `and ${canvas.count(n)} more`);
    }

    painted(data) {
      if (this.paint && this.paint.of === data && this.paint.scheme === this.scheme) return this.paint.colours;
      const style = getComputedStyle(document.documentElement);
      const colourOf = canvas.colourOf(data, this.colour, style, this.scheme === "dark");
      const found = canvas.search(data, this.find);
      let n = 0;
      const colours = Uint32Array.from({ length: data.n }, (_, j) => {
        const is = !found || found[j];
        n += is ? 1 : 0;
        return canvas.packedColour(colourOf(j), is ? 1 : 0.13);
      });
      this.nFound = found ? n : null;
      this.sayLegend(canvas.legendOf(data, this.colour, style, this.scheme === "dark"));
      const unknown = canvas.notUnderstood(this.find);
      this.foundWords.textContent = unknown ? `${unknown} is not understood: size>1GiB, life<10` : !found ? "" : n === 1 ? "1 allocation" : `${canvas.count(n)} allocations`;
      this.paint = { of: data, scheme: this.scheme, colours: colours };
      return colours;
    }

    draw() {
      if (!this.view || !this.whole || !this.root.isConnected) return;
      const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
      const plot = this.plot();
      const [wide, high] = [plot.right - plot.left, plot.bottom - plot.top];
      if (wide < 20 || high < 20) return;
      const began = performance.now();
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      const fits = (one, w, h) => {
        if (one.width !== Math.round(w * ratio) || one.height !== Math.round(h * ratio)) {
          one.width = Math.round(w * ratio);
          one.height = Math.round(h * ratio);
        }
      };
      fits(this.picture, wide, high);
      fits(this.furniture, width, height);
      Object.assign(this.picture.style, { left: `${plot.left}px`, top: `${plot.top}px`, width: `${wide}px`, height: `${high}px` });
      const { data } = this;
      if (this.projection === "address") {
        const { rectangles, colours } = this.drawAddresses(wide, high, width, height, ratio, plot);
        this.drawn = { coarse: wide, n: rectangles.n, places: rectangles, colours: colours };
        this.frameMs = performance.now() - began;
        return;
      }
      const pinned = this.pin ? data.row.indexOf(this.pin.row) : -1;
      // While the picture moves, fewer columns where all of them would take too long.
      if (this.isMoving && this.frameMs > SLOW_MS) this.thin = Math.min((this.thin || 1) * 2, 8);
      else if (this.isMoving && this.frameMs < SLOW_MS / 3) this.thin = Math.max((this.thin || 1) / 2, 1);
      const coarse = Math.ceil(wide / (this.isMoving ? this.thin || 1 : 1));
      const stacked = canvas.stack(data, this.view, coarse, high, pinned);
      const { rectangles } = stacked;
      const paint = this.painted(data);
      const style = getComputedStyle(document.documentElement);
      const band = canvas.packedColour(parseInt(style.getPropertyValue("--ms-band").trim().slice(1), 16), 0.6);
      const colours = Uint32Array.from({ length: rectangles.n }, (_, i) => (rectangles.id[i] < 0 ? band : paint[rectangles.id[i]]));
      this.surface.draw(rectangles, colours, coarse, high, ratio, wide / coarse);
      this.drawn = { moments: stacked.moments, lefts: stacked.lefts, coarse: coarse, n: rectangles.n, places: rectangles, colours: colours };
      this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      canvas.furnish(this.pen, {
        view: this.view, run: this.run, plot: plot, width: width, height: height, style: style,
        series: this.series, moment: this.moment, range: this.range,
        outline: stacked.outline.map((value, i) => (i % 4 < 2 ? value * (wide / coarse) : value)),
        toX: (moment) => this.toX(moment), toY: (bytes) => this.toY(bytes),
      });
      this.frameMs = performance.now() - began;
    }

    // Playing and saving

    play() {
      if (this.playing) {
        cancelAnimationFrame(this.playing);
        this.playing = null;
        this.playButton.textContent = "play";
        return;
      }
      const from = this.moment >= this.view.x1 - 1 ? this.view.x0 : Math.max(this.moment, this.view.x0);
      const to = Math.min(this.view.x1, this.run.n_events + 1);
      const began = performance.now();
      this.playButton.textContent = "stop";
      const step = () => {
        const share = (performance.now() - began) / PLAY_MS;
        this.setMoment(from + (to - from) * Math.min(share, 1), true);
        if (share < 1 && this.root.isConnected) this.playing = requestAnimationFrame(step);
        else {
          this.playing = null;
          this.playButton.textContent = "play";
        }
      };
      this.playing = requestAnimationFrame(step);
    }
    save(url, ending) {
      const link = element("a");
      link.href = url;
      link.download = `${this.subject.trace.replace(/\.[^.]*$/, "")}-allocations.${ending}`;
      link.click();
    }
    savePng() {
      if (!this.drawn) return;
      const whole = element("canvas");
      whole.width = this.furniture.width;
      whole.height = this.furniture.height;
      const pen = whole.getContext("2d");
      const ratio = this.furniture.width / this.stage.clientWidth;
      const plot = this.plot();
      pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--ms-surface");
      pen.fillRect(0, 0, whole.width, whole.height);
      pen.drawImage(this.picture, Math.round(plot.left * ratio), Math.round(plot.top * ratio));
      pen.drawImage(this.furniture, 0, 0);
      this.save(whole.toDataURL("image/png"), "png");
    }
    saveSvg() {
      if (!this.drawn) return;
      const { places, colours, n, coarse } = this.drawn;
      const plot = this.plot();
      const wide = this.plotWidth() / coarse;
      const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
      const parts = [`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`];
      const surface = getComputedStyle(document.documentElement).getPropertyValue("--ms-surface").trim();
      parts.push(`<rect width="100%" height="100%" fill="${surface}"/>`);
      parts.push(`<g transform="translate(${plot.left} ${plot.top})" clip-path="inset(0)">`);
      for (let i = 0; i < n; i++) {
        const [left, right, low, top] = places.place.subarray(4 * i, 4 * i + 4);
        const c = colours[i];
        const fill = "#" + [c & 255, (c >> 8) & 255, (c >> 16) & 255].map((part) => part.toString(16).padStart(2, "0")).join("");
        const opacity = c >>> 24 === 255 ? "" : ` fill-opacity="${((c >>> 24) / 255).toFixed(2)}"`;
        parts.push(`<rect x="${(left * wide).toFixed(1)}" y="${top.toFixed(1)}" width="${((right - left) * wide).toFixed(1)}" height="${(low - top).toFixed(1)}" fill="${fill}"${opacity}/>`);
      }
      parts.push("</g>", `<image width="${width}" height="${height}" href="${this.furniture.toDataURL("image/png")}"/>`, "</svg>");
      this.save(URL.createObjectURL(new Blob(parts, { type: "image/svg+xml" })), "svg");
    }

    pressed(event) {
      if (!this.view) return false;
      const step = (direction) => {
        const edges = this.run.steps.map((span) => span[1]);
        const next = direction > 0 ? edges.find((edge) => edge > this.moment) : [...edges].reverse().find((edge) => edge < this.moment);
        if (next !== undefined) this.goTo(next);
      };
      if (this.projection === "address" && "wsad".includes(event.key) | event.key.startsWith("Arrow")) return this.pressedOverAddresses(event.key);
      const middle = () => (this.moment >= this.view.x0 && this.moment < this.view.x1 ? this.moment : (this.view.x0 + this.view.x1) / 2);
      const does = {
        w: () => this.zoomX(0.7, middle()),
        s: () => this.zoomX(1 / 0.7, middle()),
        a: () => this.move(-0.2, 0),
        d: () => this.move(0.2, 0),
        ArrowLeft: () => this.move(-0.2, 0),
        ArrowRight: () => this.move(0.2, 0),
        ArrowUp: () => (event.shiftKey ? this.zoomY(0.7, this.view.y0) : this.move(0, 0.2)),
        ArrowDown: () => (event.shiftKey ? this.zoomY(1 / 0.7, this.view.y0) : this.move(0, -0.2)),
        f: () => this.fit(),
        v: () => this.fitBytes(),
        p: () => this.goTo(this.run.peak),
        o: () => {
          const next = this.run.ooms.find(([moment]) => moment > this.moment) || this.run.ooms[0];
          if (next) this.goTo(next[0]);
        },
        j: () => this.goTo(this.moment + 1),
        k: () => this.goTo(this.moment - 1),
        "[": () => step(-1),
        "]": () => step(1),
        " ": () => this.play(),
        "/": () => this.searchInput.focus(),
        "?": () => this.help(),
        x: () => this.setProjection(this.projection === "time" ? "address" : "time"),
        Escape: () => {
          const help = this.stage.querySelector(".canvas-help");
          if (help) help.remove();
          else if (this.range) this.setRange(null);
          else this.setPin(null);
        },
      }[event.key];
      if (!does) return false;
      does();
      return true;
    }
    pressedOverAddresses(key) {
      if (!this.space) return false;
      const plot = this.plot();
      const [x, y] = [(plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2];
      const { u0, u1, v0, v1 } = this.addressView;
      const by = (du, dv) => this.showAddresses({ u0: u0 + du * (u1 - u0), u1: u1 + du * (u1 - u0), v0: v0 + dv * (v1 - v0), v1: v1 + dv * (v1 - v0) });
      if (key === "w") this.zoomAddresses(0.7, x, y);
      else if (key === "s") this.zoomAddresses(1 / 0.7, x, y);
      else if (key === "a" || key === "ArrowLeft") by(-0.2, 0);
      else if (key === "d" || key === "ArrowRight") by(0.2, 0);
      else by(0, key === "ArrowUp" ? -0.2 : 0.2);
      return true;
    }
    goTo(moment) {
      this.setMoment(moment, true);
      this.reveal(this.moment);
    }
  }

  let instrument = null;

  document.addEventListener("keydown", (event) => {
    if (!instrument || !instrument.root.isConnected || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (target.closest && target.closest("input, textarea, select, [role=slider], [role=combobox]")) return;
    if (event.key === " " && target.closest && target.closest("button, a")) return;
    if (instrument.pressed(event)) event.preventDefault();
  });

  /** Whether what is drawn is of a trace and a device. */
  canvas.isOf = (moment) => instrument.subject.trace === moment.trace && instrument.subject.device === moment.device;

  canvas.fields = () => (instrument && instrument.root.isConnected ? instrument.fields() : {});

  /** What is drawn, for tests and for whoever builds on it. */
  canvas.state = function () {
    if (!instrument || !instrument.view || !instrument.drawn) return null;
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
      n_found: instrument.nFound ?? null,
      surface: instrument.surface.name,
      frame_ms: instrument.frameMs,
    };
  };

  /** Where an allocation is drawn at a moment, on the page: for tests that click on it. Null where it is not in sight. */
  canvas.placeOf = function (row, moment) {
    const { data } = instrument;
    const j = data.row.indexOf(row);
    if (j < 0 || data.start[j] > moment || data.end[j] <= moment) return null;
    let bottom = 0;
    for (let i = 0; i < j; i++) if (data.start[i] <= moment && data.end[i] > moment) bottom += data.size[i];
    const box = instrument.stage.getBoundingClientRect();
    return { x: box.left + instrument.toX(moment + 0.5), y: box.top + instrument.toY(bottom + data.size[j] / 2) };
  };

  function held(space) {
    const bytes = { blocks: 0, segments: 0, n_segments: space.segments.length, n_stray: space.nStray };
    for (const name of canvas.HOLES) bytes[name] = 0;
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
  canvas.addressAt = (moment) => held(canvas.addressSpace(instrument.whole, instrument.addresses, moment));

  /** Called by the page whenever what it looks at changes. */
  canvas.follow = function (subject, scheme, moment, pin) {
    const root = document.getElementById("canvas-root");
    if (!root || !subject || subject.device === null || !scheme) return;
    if (!instrument || instrument.root !== root) instrument = new Instrument(root);
    if (instrument.scheme !== scheme) {
      instrument.scheme = scheme;
      setTimeout(() => instrument.redraw(), 60); // the page's own colours follow
    }
    const opened = instrument.open(subject);
    opened.then(() => moment && instrument.heardMoment(moment.event, false));
    if (moment) instrument.heardMoment(moment.event, true);
    instrument.heardPin(pin);
  };
})();
