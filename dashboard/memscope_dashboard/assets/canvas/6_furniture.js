// What stands around the picture: axes, lines, marks, steps, the pinned allocation's outline.
(function () {
  const canvas = window.memscopeCanvas;
  const STRIP = 16;
  const MOST_PHASES = 3;
  canvas.MARGIN = { left: 64, right: 12, top: 10, bottom: 22 };

  /** @param {number} low @param {number} high @param {number} n */
  function ticks(low, high, n) {
    const rough = (high - low) / Math.max(n, 1);
    const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1e-9)));
    const step = [1, 2, 5].map((k) => k * power).find((k) => k >= rough) || 10 * power;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
    return found;
  }

  /** @param {number} low @param {number} high @param {number} n @returns {[number, string][]} */
  function byteTicks(low, high, n) {
    const unit = 1024 ** Math.min(Math.floor(Math.log2(Math.max(high, 1)) / 10), 4);
    const name = ["B", "KiB", "MiB", "GiB", "TiB"][Math.round(Math.log2(unit) / 10)];
    return ticks(low / unit, high / unit, n).map((value) => [value * unit, `${+value.toPrecision(6)} ${name}`]);
  }

  /** How many rows of steps and phases there are. */
  canvas.strips = function (run) {
    return (run.steps.length ? 1 : 0) + Math.min(run.phases.reduce((most, span) => Math.max(most, span[3] + 1), 0), MOST_PHASES);
  };
  canvas.stripsHeight = (run) => canvas.strips(run) * STRIP;

  /** @param {CanvasRenderingContext2D} pen @param {Span[]} list @param {number} row @param {Furniture} s @param {string} ink @param {string} faint */
  function spans(pen, list, row, s, ink, faint) {
    const top = s.plot.bottom + 3 + row * STRIP;
    for (const [label, begin, end] of list) {
      const left = Math.max(s.toX(begin), s.plot.left);
      const right = Math.min(s.toX(end), s.plot.right);
      if (right - left < 1) continue;
      pen.fillStyle = faint;
      pen.fillRect(left, top, Math.max(right - left - 1, 1), STRIP - 3);
      const n = Math.floor((right - left - 6) / 7);
      if (n >= Math.min(label.length, 3)) {
        pen.fillStyle = ink;
        pen.fillText(label.length > n ? label.slice(0, Math.max(n - 1, 2)) + "…" : label, (left + right) / 2, top + STRIP / 2 - 1);
      }
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {string} text @param {number} x @param {number} y @param {string} ink @param {string} surface @param {"left" | "right" | "center"} align */
  function label(pen, text, x, y, ink, surface, align) {
    pen.textAlign = align;
    const width = pen.measureText(text).width + 8;
    const left = align === "right" ? x - width : align === "center" ? x - width / 2 : x;
    pen.fillStyle = surface;
    pen.globalAlpha = 0.85;
    pen.fillRect(left, y - 8, width, 16);
    pen.globalAlpha = 1;
    pen.fillStyle = ink;
    pen.fillText(text, align === "right" ? x - 4 : align === "center" ? x : x + 4, y);
  }

  /** @param {CanvasRenderingContext2D} pen @param {Series} series @param {Furniture} s */
  function reservedLine(pen, series, s) {
    pen.beginPath();
    let y = null;
    for (let i = 0; i < series.begin.length; i++) {
      const from = series.begin[i];
      const to = i + 1 < series.begin.length ? series.begin[i + 1] : series.high + 1;
      if (to < s.view.x0 || from > s.view.x1) continue;
      y = s.toY(series.reserved[i]);
      pen.lineTo(s.toX(from), y);
      pen.lineTo(s.toX(to), y);
    }
    pen.stroke();
    return y;
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} y @param {Furniture} s */
  function dashed(pen, y, s) {
    pen.setLineDash([5, 4]);
    pen.beginPath();
    pen.moveTo(s.plot.left, y);
    pen.lineTo(s.plot.right, y);
    pen.stroke();
    pen.setLineDash([]);
  }

  /** @param {CanvasRenderingContext2D} pen @param {Furniture} s @param {string} red @param {string} surface */
  function ooms(pen, s, red, surface) {
    let at = -100;
    let n = 0;
    const flush = function () {
      if (!n) return;
      pen.strokeStyle = red;
      pen.setLineDash([2, 3]);
      pen.beginPath();
      pen.moveTo(at + 0.5, s.plot.top + 16);
      pen.lineTo(at + 0.5, s.plot.bottom);
      pen.stroke();
      pen.setLineDash([]);
      const text = n > 1 ? `✕ ${canvas.count(n)}` : "✕ OOM";
      label(pen, text, Math.min(Math.max(at, s.plot.left + 26), s.plot.right - 26), s.plot.top + 9, red, surface, "center");
    };
    for (const [moment] of s.run.ooms) {
      if (moment < s.view.x0 || moment > s.view.x1) continue;
      const x = s.toX(moment);
      if (x - at > 48) {
        flush();
        at = x;
        n = 0;
      }
      n++;
    }
    flush();
  }

  /** What stands around the address space: the groups' names, the pinned block and the holes that it keeps. */
  canvas.furnishAddresses = function (pen, s) {
    /** @param {string} name */
    const colour = (name) => s.style.getPropertyValue("--ms-" + name).trim();
    const [ink, muted, faint] = ["ink", "muted", "faint"].map(colour);
    const { plot, view, space } = s;
    pen.clearRect(0, 0, s.width, s.height);
    pen.font = "12px " + getComputedStyle(document.body).fontFamily;
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    /** @param {number} row */
    const y = (row) => plot.top + ((row - view.v0) / (view.v1 - view.v0)) * (plot.bottom - plot.top);
    /** @param {number} u */
    const x = (u) => plot.left + ((u - view.u0) / (view.u1 - view.u0)) * (plot.right - plot.left);
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, 0, plot.right - plot.left, plot.bottom);
    pen.clip();
    for (const heading of space.headings) {
      pen.fillStyle = muted;
      pen.fillText(
        `${heading.name}: ${heading.n} segment${heading.n === 1 ? "" : "s"}, ${canvas.bytes(heading.bytes)} reserved, ${canvas.bytes(heading.width)} a row`,
        Math.max(x(0), plot.left) + 2, y(heading.row + 0.9) - 4);
    }
    pen.strokeStyle = faint;
    for (const segment of space.segments) {
      let at = segment.at;
      for (let left = segment.end - segment.begin; left > 0; ) {
        const row = Math.floor(at / segment.width);
        const part = Math.min(left, (row + 1) * segment.width - at);
        const from = (at - row * segment.width) / segment.width;
        pen.strokeRect(x(from), y(segment.row + row) + 0.5, x(from + part / segment.width) - x(from), y(segment.row + row + 1) - y(segment.row + row) - 1);
        at += part;
        left -= part;
      }
    }
    pen.strokeStyle = ink;
    pen.setLineDash([3, 3]);
    pen.beginPath();
    for (const [[x0, y0], [x1, y1]] of s.ties) {
      pen.moveTo(plot.left + x0, plot.top + y0);
      pen.lineTo(plot.left + x1, plot.top + y1);
    }
    pen.stroke();
    pen.setLineDash([]);
    pen.lineWidth = 2;
    for (const [x0, x1, top, bottom] of s.outline) pen.strokeRect(plot.left + x0, plot.top + top, Math.max(x1 - x0, 2), bottom - top);
    pen.lineWidth = 1;
    pen.restore();
  };

  /** Everything but the allocations. `s`: view, plot, run, series, toX, toY, moment, range, outline, style. */
  canvas.furnish = function (pen, s) {
    /** @param {string} name */
    const colour = (name) => s.style.getPropertyValue("--ms-" + name).trim();
    const [ink, muted, faint, grid, surface, red] = ["ink", "muted", "faint", "grid", "surface", "red"].map(colour);
    const { plot, view, run } = s;
    pen.clearRect(0, 0, s.width, s.height);
    pen.font = "12px " + getComputedStyle(document.body).fontFamily;
    pen.textBaseline = "middle";
    pen.lineWidth = 1;
    pen.textAlign = "right";
    for (const [value, text] of byteTicks(view.y0, view.y1, (plot.bottom - plot.top) / 56)) {
      const y = Math.round(s.toY(value)) + 0.5;
      pen.strokeStyle = faint;
      pen.beginPath();
      pen.moveTo(plot.left - 4, y);
      pen.lineTo(plot.left, y);
      pen.stroke();
      pen.fillStyle = muted;
      pen.fillText(text, plot.left - 7, Math.min(y, plot.bottom - 5));
    }
    pen.textAlign = "center";
    const ruler = s.height - canvas.MARGIN.bottom / 2;
    for (const moment of ticks(view.x0, view.x1, (plot.right - plot.left) / 110)) {
      if (moment % 1) continue;
      const x = s.toX(moment);
      pen.fillStyle = muted;
      if (x < plot.right - 20) pen.fillText(canvas.count(moment), Math.max(x, plot.left + 12), ruler);
    }
    pen.textAlign = "right";
    pen.fillStyle = muted;
    pen.fillText("event", plot.left - 6, ruler);
    pen.textAlign = "center";
    let row = 0;
    if (run.steps.length) spans(pen, run.steps, row++, s, ink, grid);
    for (const span of run.phases) if (span[3] < MOST_PHASES) spans(pen, [span], row + span[3], s, muted, grid);
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, plot.top, plot.right - plot.left, plot.bottom - plot.top);
    pen.clip();
    if (s.range) {
      pen.fillStyle = muted;
      pen.globalAlpha = 0.18;
      pen.fillRect(s.toX(s.range[0]), plot.top, s.toX(s.range[1] + 1) - s.toX(s.range[0]), plot.bottom - plot.top);
      pen.globalAlpha = 1;
    }
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    const y = reservedLine(pen, s.series, s);
    if (y !== null && y > plot.top + 8 && y < plot.bottom - 24) label(pen, "reserved", plot.right - 4, y + 10, ink, surface, "right");
    if (run.total_bytes) {
      pen.strokeStyle = muted;
      const top = s.toY(run.total_bytes);
      dashed(pen, top, s);
      if (top > plot.top && top < plot.bottom) label(pen, `device ${canvas.bytes(run.total_bytes)}`, plot.left + 6, top + 10, muted, surface, "left");
    }
    if (s.outline.length) {
      pen.strokeStyle = ink;
      pen.lineWidth = 2;
      pen.beginPath();
      for (const side of [2, 3]) {
        for (let i = 0; i < s.outline.length; i += 4) {
          const at = s.toY(s.outline[i + side]);
          if (i && s.outline[i] === s.outline[i - 3]) pen.lineTo(plot.left + s.outline[i], at);
          else pen.moveTo(plot.left + s.outline[i], at);
          pen.lineTo(plot.left + s.outline[i + 1], at);
        }
      }
      pen.stroke();
    }
    const x = s.toX(s.moment) + 0.5;
    pen.strokeStyle = ink;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x, plot.top);
    pen.lineTo(x, plot.bottom);
    pen.stroke();
    ooms(pen, s, red, surface);
    const peak = s.toX(run.peak);
    if (peak >= plot.left && peak <= plot.right) {
      pen.fillStyle = ink;
      pen.textAlign = "center";
      pen.fillText("▲", peak, plot.bottom - 7);
    }
    pen.restore();
    if (x >= plot.left && x <= plot.right) {
      pen.fillStyle = ink;
      pen.beginPath();
      pen.moveTo(x - 5, plot.top - 6);
      pen.lineTo(x + 5, plot.top - 6);
      pen.lineTo(x, plot.top);
      pen.fill();
    }
    pen.strokeStyle = faint;
    pen.lineWidth = 1;
    pen.strokeRect(plot.left - 0.5, plot.top - 0.5, plot.right - plot.left + 1, plot.bottom - plot.top + 1);
  };
})();
