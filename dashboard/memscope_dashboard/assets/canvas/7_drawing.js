// When the picture is drawn, and how.
(function () {
  const canvas = window.memscopeCanvas;
  const REST_MS = 220;
  const SLOW_MS = 30;

  /** @type {Drawing & ThisType<Instrument>} */
  const part = {
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
    },
    rest() {
      if (!this.opened || !this.root.isConnected) return;
      if (this.isMoving) {
        this.isMoving = false;
        this.redraw();
      }
      this.refine();
      this.writeAddress();
    },
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
    },
    draw() {
      if (!this.opened || !this.root.isConnected) return;
      const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
      const plot = this.plot();
      const [wide, high] = [plot.right - plot.left, plot.bottom - plot.top];
      if (wide < 20 || high < 20) return;
      const began = performance.now();
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      /** @param {HTMLCanvasElement} one @param {number} w @param {number} h */
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
        this.drawn = { columns: null, coarse: wide, n: rectangles.n, places: rectangles, colours: colours };
        this.frameMs = performance.now() - began;
        return;
      }
      const pinned = this.pin ? data.row.indexOf(this.pin.row) : -1;
      // While the picture moves, fewer columns where all of them would take too long.
      if (this.isMoving && this.frameMs > SLOW_MS) this.thin = Math.min(this.thin * 2, 8);
      else if (this.isMoving && this.frameMs < SLOW_MS / 3) this.thin = Math.max(this.thin / 2, 1);
      const coarse = Math.ceil(wide / (this.isMoving ? this.thin : 1));
      const stacked = canvas.stack(data, this.view, coarse, high, pinned);
      const { rectangles } = stacked;
      const paint = this.painted(data);
      const style = getComputedStyle(document.documentElement);
      const band = canvas.packedColour(parseInt(style.getPropertyValue("--ms-band").trim().slice(1), 16), 0.6);
      const colours = Uint32Array.from({ length: rectangles.n }, (_, i) => (rectangles.id[i] < 0 ? band : paint[rectangles.id[i]]));
      this.surface.draw(rectangles, colours, coarse, high, ratio, wide / coarse);
      this.drawn = { columns: { moments: stacked.moments, lefts: stacked.lefts }, coarse: coarse, n: rectangles.n, places: rectangles, colours: colours };
      this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      canvas.furnish(this.pen, {
        view: this.view, run: this.run, plot: plot, width: width, height: height, style: style,
        series: this.known.series, moment: this.moment, range: this.range,
        outline: stacked.outline.map((value, i) => (i % 4 < 2 ? value * (wide / coarse) : value)),
        toX: (moment) => this.toX(moment), toY: (bytes) => this.toY(bytes),
      });
      this.frameMs = performance.now() - began;
    },
  };

  canvas.parts.drawing = part;
})();
