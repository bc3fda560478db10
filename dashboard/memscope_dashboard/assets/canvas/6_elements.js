// Elements of the page, made of a line each; and the parts of the instrument, which the scripts that follow fill in.
(function () {
  const canvas = window.memscopeCanvas;

  canvas.parts = /** @type {InstrumentParts} */ ({});

  canvas.element = function (tag, className, parent, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text) made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  };

  canvas.button = function (parent, text, title, does) {
    const made = canvas.element("button", "go", parent, text);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", does);
    return made;
  };

  canvas.penOf = function (element) {
    const pen = element.getContext("2d");
    if (!pen) throw new Error("this browser has no Canvas 2D");
    return pen;
  };
})();
