// The state that the address bar holds: a copied address shows the same picture.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {AddressBar & ThisType<Instrument>} */
  const part = {
    /** Of the trace that the page was opened with; another one is seen whole, whatever was seen of the one before. */
    restore(isFirst) {
      const fields = new URLSearchParams(isFirst ? location.search : "");
      /** @param {string} name */
      const number = (name) => {
        const text = fields.get(name);
        return text === null || isNaN(Number(text)) ? null : Number(text);
      };
      const [x0, x1, y0, y1] = ["x0", "x1", "y0", "y1"].map(number);
      this.view = this.fitted();
      if (x0 !== null && x1 !== null && x0 < x1) this.view = this.kept({ ...this.view, x0: x0, x1: x1 });
      if (y0 !== null && y1 !== null && y0 < y1) this.view = this.kept({ ...this.view, y0: y0, y1: y1 });
      const colour = fields.get("colour") || "";
      this.setColour(canvas.isColouring(colour) ? colour : canvas.usualColour(this.whole));
      this.searchInput.value = fields.get("find") || "";
      this.setFind(this.searchInput.value);
      const [r0, r1, pin] = [number("r0"), number("r1"), number("pin")];
      this.setRange(r0 !== null && r1 !== null ? [r0, r1] : null);
      if (pin !== null && !this.pin) this.setPin(pin);
      this.setProjection((isFirst ? fields.get("projection") : this.projection) === "address" ? "address" : "time");
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
