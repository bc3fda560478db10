// Which trace is open, and what the server says of it.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {Opening & ThisType<Instrument>} */
  const part = {
    async open(subject) {
      const key = `${subject.trace} ${subject.device}`;
      if (this.openedKey === key) return;
      this.openedKey = key;
      const isFirst = !this.subject;
      this.subject = subject;
      const generation = ++this.generation;
      this.opened = this.addresses = this.space = this.heldAddressView = this.momentData = this.paint = null;
      this.note.textContent = this.problem.textContent = "";
      try {
        /** @type {Run} */
        const run = await (await this.answer("run", {})).json();
        if (generation !== this.generation) return;
        const range = { low: 0, high: run.n_events };
        const [allocations, series] = await Promise.all([this.ask("allocations", range), this.ask("series", range)]);
        if (generation !== this.generation) return;
        const whole = canvas.allocationsOf(allocations);
        this.opened = { run: run, whole: whole, detail: null, series: canvas.seriesOf(series), view: canvas.fittedView(run) };
      } catch (error) {
        if (generation === this.generation) this.note.textContent = canvas.errorText(error);
        return;
      }
      if (!this.whole.n) this.note.textContent = "No allocation was recorded: there is nothing to draw.";
      this.restore(isFirst);
      this.say();
      this.redraw();
    },
    async answer(what, fields) {
      const { trace, device } = this.subject || { trace: "", device: "" };
      const query = new URLSearchParams({ trace: trace, device: String(device) });
      for (const [name, value] of Object.entries(fields)) query.set(name, String(value));
      const response = await fetch(`/canvas/${what}?${query}`);
      if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error || `the server answered ${response.status}`);
      return response;
    },
    async ask(what, fields) {
      return (await this.answer(what, fields)).arrayBuffer();
    },
    get known() {
      if (!this.opened) throw new Error("no trace is open yet");
      return this.opened;
    },
    get run() {
      return this.known.run;
    },
    get whole() {
      return this.known.whole;
    },
    /** What covers the view: the part of the run that was asked for last, else all of it. */
    get data() {
      const { detail, view, run, whole } = this.known;
      if (!detail) return whole;
      const covers = detail.low <= Math.max(Math.floor(view.x0), 0) && detail.high >= Math.min(Math.ceil(view.x1) - 1, run.n_events);
      return covers ? detail : whole;
    },
    /** At rest: the allocations that were drawn together, and the reserved line event by event. */
    async refine() {
      const { known, generation } = this;
      const { view, run, whole, series, detail } = known;
      const low = Math.max(Math.floor(view.x0), 0);
      const high = Math.min(Math.ceil(view.x1), run.n_events);
      const fits = series.low <= low && series.high >= high && (series.is_exact || series.high - series.low < 2.5 * (high - low));
      try {
        if (this.projection === "address") {
          if (!this.addressData) await this.askForMoment();
          return;
        }
        if (!fits) {
          const found = canvas.seriesOf(await this.ask("series", { low: low, high: high }));
          if (generation !== this.generation) return;
          known.series = found;
          this.redraw();
        }
        if (!whole.n_left_out || high - low > 0.6 * run.n_events) return;
        if (detail && detail.low <= low && detail.high >= high && (!detail.n_left_out || detail.high - detail.low < 3 * (high - low))) return;
        const air = Math.ceil((high - low) / 2);
        const range = { low: Math.max(low - air, 0), high: Math.min(high + air, run.n_events) };
        const found = canvas.allocationsOf(await this.ask("allocations", range));
        if (generation !== this.generation) return;
        known.detail = found;
        this.paint = null;
        this.redraw();
      } catch (error) {
        this.note.textContent = canvas.errorText(error);
      }
    },
  };

  canvas.errorText = (error) => (error instanceof Error ? error.message : String(error));
  canvas.parts.opening = part;
})();
