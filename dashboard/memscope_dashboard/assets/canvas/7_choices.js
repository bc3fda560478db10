// What is chosen: moment, pin, range, colour, search.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {Choices & ThisType<Instrument>} */
  const part = {
    eventOf(moment) {
      return moment === 0 ? -1 : this.run.first_event + moment - 1;
    },
    setMoment(moment, tells) {
      moment = Math.min(Math.max(Math.floor(moment), 0), this.run.n_events);
      if (moment === this.moment) return;
      this.moment = moment;
      this.redraw();
      if (!tells) return;
      clearTimeout(this.telling);
      const wait = Math.max(0, 120 - (performance.now() - this.toldAt));
      this.telling = setTimeout(() => {
        this.toldAt = performance.now();
        window.dash_clientside.set_props("jump", { data: { event: this.eventOf(this.moment), from: "canvas" } });
      }, wait);
    },
    /** The page's moment: shown where it is, and where it was chosen elsewhere brought into sight. */
    heardMoment(event, isChosen) {
      if (!this.opened) return;
      const moment = event < 0 ? 0 : event - this.run.first_event + 1;
      if (moment === this.moment || performance.now() - this.toldAt < 400) return;
      this.moment = moment;
      if (isChosen) this.reveal(moment);
      else this.redraw();
    },
    goTo(moment) {
      this.setMoment(moment, true);
      this.reveal(this.moment);
    },
    setPin(row) {
      const pin = row === null || !this.subject ? null : { trace: this.subject.trace, device: this.subject.device, row: row };
      this.pin = pin;
      window.dash_clientside.set_props("pin", { data: pin });
      this.redraw();
    },
    heardPin(pin) {
      const isHere = pin && this.subject && pin.trace === this.subject.trace && pin.device === this.subject.device;
      this.pin = isHere ? pin : null;
      this.redraw();
    },
    setRange(range) {
      const last = this.run.n_events;
      /** @param {number} moment */
      const inside = (moment) => Math.min(Math.max(Math.floor(moment), 0), last);
      this.range = range && [inside(Math.min(...range)), inside(Math.max(...range))];
      this.sayRange();
      this.redraw();
    },
    setColour(by) {
      this.colour = by;
      this.colourSelect.value = by;
      this.paint = null;
      this.redraw();
    },
    setFind(text) {
      this.find = text.trim();
      this.paint = null;
      this.redraw();
    },
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
    },
    showLife(j) {
      const { start, end } = this.data;
      const air = 0.1 * (end[j] - start[j]) + 1;
      this.show({ ...this.view, x0: start[j] - air, x1: end[j] + air });
    },
  };

  canvas.parts.choices = part;
})();
