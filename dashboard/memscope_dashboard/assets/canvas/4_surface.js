// Draws rectangles: with WebGL2, or where it is missing with Canvas 2D, slower.
(function () {
  const canvas = window.memscopeCanvas;
  const VERTEX = `#version 300 es
    uniform vec2 size;
    in vec2 corner;
    in vec4 place;
    in vec4 colour;
    in float ends;
    flat out vec2 isEnd;
    flat out float hatch;
    out vec4 inside;
    out vec2 extent;
    flat out vec4 fill;
    void main() {
      vec2 at = vec2(mix(place.x, place.y, corner.x), mix(place.z, place.w, corner.y));
      extent = vec2(place.y - place.x, place.z - place.w);
      inside = vec4(at.x - place.x, place.y - at.x, place.z - at.y, at.y - place.w);
      fill = colour;
      isEnd = vec2(mod(ends, 2.0), step(2.0, mod(ends, 4.0)));
      hatch = floor(ends / 4.0);
      gl_Position = vec4(at.x / size.x * 2.0 - 1.0, 1.0 - at.y / size.y * 2.0, 0.0, 1.0);
    }`;
  const FRAGMENT = `#version 300 es
    precision mediump float;
    in vec4 inside;
    in vec2 extent;
    flat in vec4 fill;
    flat in vec2 isEnd;
    flat in float hatch;
    out vec4 shown;
    void main() {
      bool edge = extent.y > 5.0 && min(inside.z, inside.w) < 1.0;
      edge = edge || extent.x > 5.0 && extent.y > 5.0 && (isEnd.x > 0.5 && inside.x < 1.0 || isEnd.y > 0.5 && inside.y < 1.0);
      // Free memory is hatched: sparsely where it could go back to the driver, densely where it cannot.
      float period = hatch > 1.5 ? 5.0 : 11.0;
      if (hatch > 0.5 && mod(gl_FragCoord.x + gl_FragCoord.y, period) < 1.6) {
        shown = vec4(vec3(0.45), 1.0) * fill.a;
        return;
      }
      shown = vec4(mix(fill.rgb, vec3(0.0), edge ? 0.22 : 0.0) * fill.a, fill.a);
    }`;

  /** @param {WebGL2RenderingContext} gl */
  function program(gl) {
    const made = gl.createProgram();
    /** @type {[number, string][]} */
    const sources = [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]];
    for (const [kind, source] of sources) {
      const shader = gl.createShader(kind);
      if (!shader) throw new Error("the browser took WebGL2 away");
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) || "no program for WebGL2");
    return made;
  }

  class WebGlSurface {
    /** @param {WebGL2RenderingContext} gl */
    constructor(gl) {
      this.name = "WebGL2";
      this.gl = gl;
      const made = program(gl);
      gl.useProgram(made);
      this.size = gl.getUniformLocation(made, "size");
      /** @param {string} name @param {Float32Array | null} content @param {number} n @param {number} kind @param {boolean} isNormal @param {number} divisor */
      const attribute = (name, content, n, kind, isNormal, divisor) => {
        const at = gl.getAttribLocation(made, name);
        const buffer = gl.createBuffer();
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        if (content) gl.bufferData(gl.ARRAY_BUFFER, content, gl.STATIC_DRAW);
        gl.enableVertexAttribArray(at);
        gl.vertexAttribPointer(at, n, kind, isNormal, 0, 0);
        gl.vertexAttribDivisor(at, divisor);
        return buffer;
      };
      attribute("corner", new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), 2, gl.FLOAT, false, 0);
      this.places = attribute("place", null, 4, gl.FLOAT, false, 1);
      this.colours = attribute("colour", null, 4, gl.UNSIGNED_BYTE, true, 1);
      this.ends = attribute("ends", null, 1, gl.UNSIGNED_BYTE, false, 1);
    }
    /**
     * `width` columns, each `wide` pixels, and `height` pixels; `ratio` device pixels are one.
     * @type {Surface["draw"]}
     */
    draw(rectangles, colours, width, height, ratio, wide) {
      const { gl } = this;
      const { place, ends, n } = rectangles;
      gl.viewport(0, 0, Math.round(width * wide * ratio), Math.round(height * ratio));
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(this.size, width, height);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.places);
      gl.bufferData(gl.ARRAY_BUFFER, place.subarray(0, 4 * n), gl.DYNAMIC_DRAW);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.colours);
      gl.bufferData(gl.ARRAY_BUFFER, colours.subarray(0, n), gl.DYNAMIC_DRAW);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.ends);
      gl.bufferData(gl.ARRAY_BUFFER, ends.subarray(0, n), gl.DYNAMIC_DRAW);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, n);
    }
  }

  class FlatSurface {
    /** @param {CanvasRenderingContext2D} context */
    constructor(context) {
      this.name = "Canvas 2D";
      this.context = context;
    }
    /** @type {Surface["draw"]} */
    draw(rectangles, colours, width, height, ratio, wide) {
      const context = this.context;
      context.setTransform(ratio * wide, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      let before = -1;
      for (let i = 0; i < rectangles.n; i++) {
        if (colours[i] !== before) {
          before = colours[i];
          const alpha = (before >>> 24) / 255;
          context.fillStyle = `rgba(${before & 255},${(before >> 8) & 255},${(before >> 16) & 255},${alpha})`;
        }
        const [left, right, low, high] = rectangles.place.subarray(4 * i, 4 * i + 4);
        if (rectangles.ends[i] > 3) {
          this.hatch(left, right, low, high, rectangles.ends[i] > 7 ? 5 : 11);
          continue;
        }
        const gap = low - high > 5 ? 0.6 : 0;
        context.fillRect(left, high, right - left, low - high - gap);
      }
    }
    /** @param {number} left @param {number} right @param {number} low @param {number} high @param {number} period */
    hatch(left, right, low, high, period) {
      const { context } = this;
      context.save();
      context.beginPath();
      context.rect(left, high, right - left, low - high);
      context.clip();
      context.fillRect(left, high, right - left, low - high);
      context.strokeStyle = "rgb(115,115,115)";
      context.beginPath();
      for (let x = left - (low - high); x < right; x += period) {
        context.moveTo(x, low);
        context.lineTo(x + low - high, high);
      }
      context.stroke();
      context.restore();
    }
  }

  /** A surface on an element. The picture is kept, so that it can be read and exported. */
  canvas.surfaceOf = function (element, wants2d) {
    const gl = wants2d ? null : element.getContext("webgl2", { preserveDrawingBuffer: true, premultipliedAlpha: true, antialias: false });
    return gl ? new WebGlSurface(gl) : new FlatSurface(canvas.penOf(element));
  };

  /** 0xRRGGBB and an opacity as the four bytes that a surface takes. */
  canvas.packedColour = (rgb, alpha) => (((alpha * 255) << 24) | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
})();
