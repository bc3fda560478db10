// Pointer, wheel and keys.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {Input & ThisType<Instrument>} */
  const part = {
    listen() {
      /** @param {MouseEvent} event */
      const at = (event) => {
        const box = this.stage.getBoundingClientRect();
        return { x: event.clientX - box.left, y: event.clientY - box.top };
      };
      /** @type {Held | null} */
      let held = null;
      this.stage.addEventListener("wheel", (event) => {
        if (!this.opened) return;
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
        if (!this.opened || event.button) return;
        this.stage.setPointerCapture(event.pointerId);
        this.stage.focus({ preventScroll: true });
        const from = at(event);
        const isTime = this.projection === "time";
        const kind = !isTime ? "move" : from.y > this.plot().bottom ? "scrub" : event.shiftKey ? "range" : "move";
        held = { ...from, kind: kind, moved: 0, view: { ...this.view }, addressView: { ...this.addressView } };
        if (kind === "scrub") this.setMoment(this.toMoment(from.x), true);
      });
      this.stage.addEventListener("pointermove", (event) => {
        const to = at(event);
        if (!held) return this.hover(to);
        held.moved = Math.max(held.moved, Math.abs(to.x - held.x) + Math.abs(to.y - held.y));
        if (held.kind === "scrub") this.setMoment(this.toMoment(to.x), true);
        else if (held.moved < 4) return;
        else if (held.kind === "range") this.setRange([this.toMoment(held.x), this.toMoment(to.x)]);
        else if (this.projection === "address") {
          const plot = this.plot();
          const { u0, u1, v0, v1 } = held.addressView;
          const du = ((held.x - to.x) / (plot.right - plot.left)) * (u1 - u0);
          const dv = ((held.y - to.y) / (plot.bottom - plot.top)) * (v1 - v0);
          this.showAddresses({ u0: u0 + du, u1: u1 + du, v0: v0 + dv, v1: v1 + dv });
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
    },
    pressed(event) {
      if (!this.opened) return false;
      /** @param {1 | -1} direction */
      const step = (direction) => {
        const edges = this.run.steps.map((span) => span[1]);
        const next = direction > 0 ? edges.find((edge) => edge > this.moment) : [...edges].reverse().find((edge) => edge < this.moment);
        if (next !== undefined) this.goTo(next);
      };
      if (this.projection === "address" && ("wsad".includes(event.key) || event.key.startsWith("Arrow"))) return this.pressedOverAddresses(event.key);
      const middle = () => (this.moment >= this.view.x0 && this.moment < this.view.x1 ? this.moment : (this.view.x0 + this.view.x1) / 2);
      /** @type {Record<string, () => void>} */
      const keys = {
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
      };
      if (!Object.hasOwn(keys, event.key)) return false;
      keys[event.key]();
      return true;
    },
  };

  canvas.parts.input = part;
})();
