// The state that the address bar holds: a copied address shows the same picture.
(function () {
  const canvas = window.memscopeCanvas;
  const MOST_SHOWN = 24;
  /** @type {{ path: string, search: string } | null} What the page was opened with, before anything is set right in it. */
  let arrival = { path: location.pathname.replace(/\/$/, ""), search: location.search };

  /** A strange value as it is repeated. @param {string | null} text */
  const said = (text) => (text === null ? "nothing" : `“${text.length > MOST_SHOWN ? text.slice(0, MOST_SHOWN - 1) + "…" : text}”`);
  /** @param {string | null} text */
  const numberOf = (text) => (text === null || !text.trim() ? NaN : Number(text));

  /** What an address asks for, and what of it is strange: a few words for each. */
  class Asked {
    /** @param {string} search */
    constructor(search) {
      this.fields = new URLSearchParams(search);
      /** @type {string[]} */
      this.strange = [];
    }
    /** @param {string} name */
    text(name) {
      return this.fields.get(name) || "";
    }
    /** A value that passes a test, else null. @param {string} name @param {(text: string) => boolean} isKnown */
    one(name, isKnown) {
      const text = this.fields.get(name);
      if (text === null || isKnown(text)) return text;
      this.strange.push(`${name} ${said(text)}, which this trace has not`);
      return null;
    }
    /**
     * Two numbers in order, of 0 to a limit, else null.
     * @param {string} low @param {string} high @param {number} limit @param {string} unit @param {boolean} [isWhole]
     * @returns {[number, number] | null}
     */
    range(low, high, limit, unit, isWhole) {
      const texts = [this.fields.get(low), this.fields.get(high)];
      if (texts[0] === null && texts[1] === null) return null;
      const [from, to] = texts.map(numberOf);
      const isInOrder = isWhole ? from <= to && Number.isInteger(from) && Number.isInteger(to) : from < to;
      if (isInOrder && from >= 0 && to <= limit) return [from, to];
      this.strange.push(`${low} ${said(texts[0])} to ${high} ${said(texts[1])}, where ${unit} are 0 to ${canvas.count(limit)}`);
      return null;
    }
    /** The page chooses the moment; here it is only said that it has another. @param {string | null} text @param {Run} run */
    event(text, run) {
      if (text === null) return;
      const [event, last] = [numberOf(text), run.first_event + run.n_events - 1];
      if (Number.isInteger(event) && (event === -1 || (event >= run.first_event && event <= last))) return;
      this.strange.push(`event ${said(text)}, where events are ${canvas.count(run.first_event)} to ${canvas.count(last)}`);
    }
  }

  /** @type {AddressBar & ThisType<Instrument>} */
  const part = {
    /**
     * Of the trace that the page was opened with; another one is seen whole, whatever was seen of the one before. What
     * is not of this trace, or of nothing, is said in a line, and the usual is shown instead.
     */
    restore(isFirst) {
      const { run } = this;
      const asked = new Asked(isFirst ? location.search : "");
      const fitted = this.fitted();
      this.view = fitted;
      const moments = asked.range("x0", "x1", fitted.x1, "event positions");
      if (moments) this.view = this.kept({ ...this.view, x0: moments[0], x1: moments[1] });
      const bytes = asked.range("y0", "y1", fitted.y1, "bytes");
      if (bytes) this.view = this.kept({ ...this.view, y0: bytes[0], y1: bytes[1] });
      const colour = asked.one("colour", canvas.isColouring);
      this.setColour(colour && canvas.isColouring(colour) ? colour : canvas.usualColour(this.whole));
      this.searchInput.value = asked.text("find");
      this.setFind(this.searchInput.value);
      this.setRange(asked.range("r0", "r1", run.n_events, "event positions", true));
      const pin = asked.one("pin", (text) => /^\d{1,15}$/.test(text) && Number(text) < run.n_allocations);
      if (pin !== null && !this.pin) this.setPin(Number(pin));
      const projection = asked.one("projection", (text) => text === "address" || text === "time");
      this.setProjection((isFirst ? projection : this.projection) === "address" ? "address" : "time");
      if (isFirst && arrival && location.pathname.replace(/\/$/, "") === arrival.path) {
        asked.event(new URLSearchParams(arrival.search).get("event"), run);
      }
      arrival = null;
      this.problem.textContent = asked.strange.length ? `The address asks for ${asked.strange.join("; ")}. The usual is shown instead.` : "";
    },
    /** What of the state the address shall hold besides trace, device and event. */
    fields() {
      if (!this.opened) return {};
      /** @type {AddressFields} */
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
    },
    writeAddress() {
      if (location.pathname.replace(/\/$/, "") !== "/canvas") return;
      const fields = new URLSearchParams(location.search);
      for (const name of ["x0", "x1", "y0", "y1", "colour", "find", "r0", "r1", "pin", "projection"]) fields.delete(name);
      for (const [name, value] of Object.entries(this.fields())) fields.set(name, String(value));
      history.replaceState(history.state, "", `${location.pathname}?${fields}`);
    },
  };

  canvas.parts.addressBar = part;
})();
