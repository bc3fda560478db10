// What is said around the picture: limits, sums of a range, the legend, the keys.
(function () {
  const canvas = window.memscopeCanvas;
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

  /** @type {Words & ThisType<Instrument>} */
  const part = {
    say() {
      const { n_left_out, n } = this.whole;
      this.limits = n_left_out
        ? `${canvas.count(n)} allocations are drawn one by one, ${canvas.count(n_left_out)} smaller ones together until you zoom in`
        : `all ${canvas.count(n)} allocations are drawn`;
      this.sayRange();
    },
    sayRange() {
      this.foot.textContent = "";
      if (this.projection === "address") {
        canvas.element("span", "quiet", this.foot, "Segments in rows, blocks in their colours; free memory is hatched, densely where blocks keep it from going back. Pin a block to see the holes that it keeps.");
        return;
      }
      if (!this.range || !this.opened) {
        canvas.element("span", "quiet", this.foot, `${this.limits} · drawn with ${this.surface.name} · Shift and drag to sum a range · ? lists the keys`);
        return;
      }
      const { data } = this;
      const [from, to] = this.range;
      /** @type {Record<RangeGrouping, (j: number) => string>} */
      const keys = {
        category: (j) => data.categories[data.category[j]].replace("_", " "),
        module: (j) => data.modules[data.owner[j]] || "not recorded",
        line: (j) => data.sites[data.site[j]] || "not recorded",
      };
      const sums = canvas.sumRange(data, from, to, keys[this.groupRangeBy]);
      const total = sums.reduce((sum, one) => sum + one.mean, 0);
      const head = canvas.element("div", "canvas-range-head", this.foot);
      canvas.element("b", null, head, `after events ${canvas.count(this.eventOf(from))} to ${canvas.count(this.eventOf(to))}: ${canvas.bytes(total)} in use on average`);
      for (const by of /** @type {RangeGrouping[]} */ (Object.keys(keys))) {
        const one = canvas.button(head, `by ${by}`, "", () => {
          this.groupRangeBy = by;
          this.sayRange();
        });
        one.setAttribute("aria-pressed", String(by === this.groupRangeBy));
      }
      canvas.button(head, "✕", "End the range (Esc)", () => this.setRange(null));
      const list = canvas.element("ol", "canvas-range", this.foot);
      for (const { key, mean } of sums.slice(0, 6)) {
        const row = canvas.element("li", null, list);
        canvas.element("span", "num", row, canvas.bytes(mean)).title = `${mean.toFixed(1)} bytes`;
        canvas.element("span", "canvas-range-key", row, key).title = key;
      }
      if (sums.length > 6) canvas.element("li", "quiet", list, `${canvas.count(sums.length - 6)} more, ${canvas.bytes(sums.slice(6).reduce((sum, one) => sum + one.mean, 0))}`);
      if (data.n_left_out) canvas.element("div", "quiet", this.foot, "without the smaller ones that are drawn together");
    },
    help() {
      const before = this.stage.querySelector(".canvas-help");
      if (before) return before.remove();
      const box = canvas.element("div", "canvas-help panel", this.stage);
      box.setAttribute("role", "dialog");
      box.setAttribute("aria-label", "Keys");
      for (const [keys, does] of HELP) {
        const row = canvas.element("div", "canvas-help-row", box);
        canvas.element("kbd", "mono", row, keys);
        canvas.element("span", null, row, does);
      }
      canvas.button(box, "close", "", () => box.remove());
    },
    sayLegend(legend) {
      this.legend.textContent = "";
      if (!legend) {
        canvas.element("span", "quiet", this.legend, "each allocation has a colour of its own");
        return;
      }
      if ("ends" in legend) {
        canvas.element("span", null, this.legend, legend.ends[0]);
        canvas.element("span", "canvas-scale", this.legend).style.background = `linear-gradient(90deg, ${legend.colours.join(",")})`;
        canvas.element("span", null, this.legend, legend.ends[1]);
        return;
      }
      for (const { name, colour } of legend.names.slice(0, 12)) {
        const one = canvas.element("span", "canvas-legend-name", this.legend);
        canvas.element("span", "canvas-swatch", one).style.background = colour;
        canvas.element("span", null, one, name).title = name;
      }
      const n = legend.names.length - 12;
      if (n > 0) canvas.element("span", "quiet", this.legend, `and ${canvas.count(n)} more`);
    },
  };

  canvas.parts.words = part;
})();
