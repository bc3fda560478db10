// The address space at the moment: asked for, shown, moved.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {Addresses & ThisType<Instrument>} */
  const part = {
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
          this.note.textContent = canvas.errorText(error);
        }
      }
      if (this.opened) this.sayRange();
      this.redraw();
    },
    get addressView() {
      return this.heldAddressView || { u0: 0, u1: 1, v0: 0, v1: Math.max(this.space ? this.space.rows : 1, 4) };
    },
    showAddresses(view) {
      if (!this.space) return;
      const rows = Math.max(this.space.rows, 4);
      const [width, height] = [Math.min(Math.max(view.u1 - view.u0, 1e-5), 1), Math.min(Math.max(view.v1 - view.v0, 0.5), rows)];
      const u0 = Math.min(Math.max(view.u0, 0), 1 - width);
      const v0 = Math.min(Math.max(view.v0, 0), rows - height);
      const isWhole = width === 1 && height === rows;
      this.heldAddressView = isWhole ? null : { u0: u0, u1: u0 + width, v0: v0, v1: v0 + height };
      this.redraw(true);
    },
    zoomAddresses(factor, x, y, isFlat) {
      if (!this.space) return;
      const { u, v } = this.toAddress(x, y);
      const { u0, u1, v0, v1 } = this.addressView;
      const tall = isFlat ? 1 : factor;
      this.showAddresses({ u0: u - (u - u0) * factor, u1: u + (u1 - u) * factor, v0: v - (v - v0) * tall, v1: v + (v1 - v) * tall });
    },
    toAddress(x, y) {
      const plot = this.plot();
      const { u0, u1, v0, v1 } = this.addressView;
      return { u: u0 + ((x - plot.left) / (plot.right - plot.left)) * (u1 - u0), v: v0 + ((y - plot.top) / (plot.bottom - plot.top)) * (v1 - v0) };
    },
    /** Every block of the moment: of long runs what is drawn together is asked for, moment by moment. */
    get addressData() {
      if (!this.whole.n_left_out) return this.whole;
      return this.momentData && this.momentData.low === this.moment ? this.momentData : null;
    },
    async askForMoment() {
      const { moment, generation } = this;
      const found = canvas.allocationsOf(await this.ask("allocations", { low: moment, high: moment }));
      if (generation !== this.generation || moment !== this.moment) return;
      this.momentData = found;
      this.paint = null;
      this.redraw();
    },
    /** The address space at the moment, worked out once for each. */
    spaceNow() {
      const { addresses, moment } = this;
      const data = this.addressData;
      if (!addresses || !data) return null;
      if (!this.space || this.space.moment !== moment || this.space.of !== data) {
        this.space = { ...canvas.addressSpace(data, addresses, moment), moment: moment, of: data };
      }
      return this.space;
    },
    drawAddresses(wide, high, width, height, ratio, plot) {
      const space = this.spaceNow();
      if (!space) return { rectangles: new canvas.Rectangles(), colours: new Uint32Array(0) };
      const data = space.of;
      if (!space.segments.length) this.note.textContent = this.addresses?.is_known ? "Nothing was reserved at this moment." : "Segments were not recorded, so where blocks lie is not measured.";
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
    },
    pressedOverAddresses(key) {
      if (!this.space) return false;
      const plot = this.plot();
      const [x, y] = [(plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2];
      const { u0, u1, v0, v1 } = this.addressView;
      /** @param {number} du @param {number} dv */
      const by = (du, dv) => this.showAddresses({ u0: u0 + du * (u1 - u0), u1: u1 + du * (u1 - u0), v0: v0 + dv * (v1 - v0), v1: v1 + dv * (v1 - v0) });
      if (key === "w") this.zoomAddresses(0.7, x, y);
      else if (key === "s") this.zoomAddresses(1 / 0.7, x, y);
      else if (key === "a" || key === "ArrowLeft") by(-0.2, 0);
      else if (key === "d" || key === "ArrowRight") by(0.2, 0);
      else by(0, key === "ArrowUp" ? -0.2 : 0.2);
      return true;
    },
  };

  canvas.parts.addresses = part;
})();
