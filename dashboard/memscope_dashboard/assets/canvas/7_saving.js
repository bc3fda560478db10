// The picture as a file.
(function () {
  const canvas = window.memscopeCanvas;

  /** @type {Saving & ThisType<Instrument>} */
  const part = {
    save(url, ending) {
      if (!this.subject) return;
      const link = canvas.element("a");
      link.href = url;
      link.download = `${this.subject.trace.replace(/\.[^.]*$/, "")}-allocations.${ending}`;
      link.click();
    },
    savePng() {
      if (!this.drawn) return;
      const whole = canvas.element("canvas");
      whole.width = this.furniture.width;
      whole.height = this.furniture.height;
      const pen = canvas.penOf(whole);
      const ratio = this.furniture.width / this.stage.clientWidth;
      const plot = this.plot();
      pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--ms-surface");
      pen.fillRect(0, 0, whole.width, whole.height);
      pen.drawImage(this.picture, Math.round(plot.left * ratio), Math.round(plot.top * ratio));
      pen.drawImage(this.furniture, 0, 0);
      this.save(whole.toDataURL("image/png"), "png");
    },
    saveSvg() {
      if (!this.drawn) return;
      const { places, colours, n, coarse } = this.drawn;
      const plot = this.plot();
      const wide = this.plotWidth() / coarse;
      const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
      const parts = [`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`];
      const surface = getComputedStyle(document.documentElement).getPropertyValue("--ms-surface").trim();
      parts.push(`<rect width="100%" height="100%" fill="${surface}"/>`);
      parts.push(`<g transform="translate(${plot.left} ${plot.top})" clip-path="inset(0)">`);
      for (let i = 0; i < n; i++) {
        const [left, right, low, top] = places.place.subarray(4 * i, 4 * i + 4);
        const c = colours[i];
        const fill = "#" + [c & 255, (c >> 8) & 255, (c >> 16) & 255].map((part) => part.toString(16).padStart(2, "0")).join("");
        const opacity = c >>> 24 === 255 ? "" : ` fill-opacity="${((c >>> 24) / 255).toFixed(2)}"`;
        parts.push(`<rect x="${(left * wide).toFixed(1)}" y="${top.toFixed(1)}" width="${((right - left) * wide).toFixed(1)}" height="${(low - top).toFixed(1)}" fill="${fill}"${opacity}/>`);
      }
      parts.push("</g>", `<image width="${width}" height="${height}" href="${this.furniture.toDataURL("image/png")}"/>`, "</svg>");
      this.save(URL.createObjectURL(new Blob(parts, { type: "image/svg+xml" })), "svg");
    },
  };

  canvas.parts.saving = part;
})();
