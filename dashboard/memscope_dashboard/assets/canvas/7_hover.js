// What lies under the pointer.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {Hover & ThisType<Instrument>} */
  const part = {
    under({ x, y }) {
      const plot = this.plot();
      if (this.projection === "address") {
        if (!this.space || !this.drawn) return null;
        const { u, v } = this.toAddress(x, y);
        const piece = canvas.pickAddress(this.space, u, v);
        return piece && { id: piece.id, piece: piece, moment: this.moment, total: 0 };
      }
      if (!this.opened || !this.drawn || !this.drawn.columns || x < plot.left || x > plot.right || y < plot.top || y > plot.bottom) return null;
      const { coarse } = this.drawn;
      const { moments, lefts } = this.drawn.columns;
      const column = canvas.firstAbove(lefts, ((x - plot.left) / this.plotWidth()) * coarse) - 1;
      if (column < 0) return null;
      const { id, total } = canvas.pick(this.data, moments[column], this.toBytes(y));
      return { id: id, total: total, piece: null, moment: moments[column] };
    },
    hover(at) {
      const hit = this.under(at);
      this.tip.classList.toggle("hidden", !hit);
      if (!hit) return;
      this.tip.textContent = "";
      /** @param {string} text @param {string} [className] */
      const line = (text, className) => text && canvas.element("div", className, this.tip, text);
      const data = this.shownData;
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
    },
    get shownData() {
      return this.projection === "address" && this.space ? this.space.of : this.data;
    },
    choose(at) {
      const hit = this.under(at);
      if (!hit) return;
      const data = this.shownData;
      this.setPin(hit.id >= 0 ? data.row[hit.id] : null);
    },
  };

  canvas.parts.hover = part;
})();
