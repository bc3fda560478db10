// What part of the run is in sight, and where it lies on the stage.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {ViewOverEvents & ThisType<Instrument>} */
  const part = {
    get view() {
      return this.known.view;
    },
    set view(view) {
      this.known.view = view;
    },
    plot() {
      const { left, right, top, bottom } = canvas.MARGIN;
      if (this.projection === "address") return { left: 4, right: this.stage.clientWidth - 4, top: 4, bottom: this.stage.clientHeight - 4 };
      const strips = this.opened ? canvas.stripsHeight(this.run) : 0;
      return { left: left, right: this.stage.clientWidth - right, top: top, bottom: this.stage.clientHeight - bottom - strips };
    },
    plotWidth() {
      const plot = this.plot();
      return plot.right - plot.left;
    },
    fitted() {
      return canvas.fittedView(this.run);
    },
    kept(view) {
      const fitted = this.fitted();
      const width = Math.min(Math.max(view.x1 - view.x0, 4), fitted.x1);
      const height = Math.min(Math.max(view.y1 - view.y0, 512), fitted.y1);
      const x0 = Math.min(Math.max(view.x0, 0), fitted.x1 - width);
      const y0 = Math.min(Math.max(view.y0, 0), fitted.y1 - height);
      return { x0: x0, x1: x0 + width, y0: y0, y1: y0 + height };
    },
    show(view) {
      this.view = this.kept(view);
      this.redraw(true);
    },
    fit() {
      this.heldAddressView = null;
      if (this.opened) this.show(this.fitted());
    },
    fitBytes() {
      const { data, view } = this;
      const [low, high] = [Math.max(Math.floor(view.x0), data.low), Math.min(Math.ceil(view.x1), data.high)];
      let most = 1;
      for (let moment = low; moment <= high; moment++) most = Math.max(most, data.active[moment - data.low]);
      this.show({ ...view, y0: 0, y1: most * 1.04 });
    },
    zoomX(factor, at) {
      const { x0, x1 } = this.view;
      this.show({ ...this.view, x0: at - (at - x0) * factor, x1: at + (x1 - at) * factor });
    },
    zoomY(factor, at) {
      const { y0, y1 } = this.view;
      this.show({ ...this.view, y0: at - (at - y0) * factor, y1: at + (y1 - at) * factor });
    },
    move(dx, dy) {
      const { x0, x1, y0, y1 } = this.view;
      const [right, up] = [dx * (x1 - x0), dy * (y1 - y0)];
      this.show({ x0: x0 + right, x1: x1 + right, y0: y0 + up, y1: y1 + up });
    },
    reveal(moment) {
      const { x0, x1 } = this.view;
      if (moment >= x0 && moment < x1) return this.redraw();
      this.show({ ...this.view, x0: moment - (x1 - x0) / 2, x1: moment + (x1 - x0) / 2 });
    },
    toX(moment) {
      const plot = this.plot();
      return plot.left + ((moment - this.view.x0) / (this.view.x1 - this.view.x0)) * (plot.right - plot.left);
    },
    toY(bytes) {
      const plot = this.plot();
      return plot.bottom - ((bytes - this.view.y0) / (this.view.y1 - this.view.y0)) * (plot.bottom - plot.top);
    },
    toMoment(x) {
      const plot = this.plot();
      return this.view.x0 + ((x - plot.left) / (plot.right - plot.left)) * (this.view.x1 - this.view.x0);
    },
    toBytes(y) {
      const plot = this.plot();
      return this.view.y0 + ((plot.bottom - y) / (plot.bottom - plot.top)) * (this.view.y1 - this.view.y0);
    },
  };

  /** All of the run. */
  canvas.fittedView = function (run) {
    const top = Math.max(run.active_peak_bytes, run.reserved_peak_bytes || 0, 1);
    return { x0: 0, x1: run.n_events + 1, y0: 0, y1: Math.ceil(top * 1.04) };
  };

  canvas.parts.viewOverEvents = part;
})();
