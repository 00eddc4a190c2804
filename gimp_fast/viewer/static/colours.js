// Colours of places on the bar, 0 … 100.
"use strict";
(() => {
  const view = (window.gimpView = window.gimpView || {});
  const STEPS = 256;

  // The step of a place; gimp_fast/heatmaps/raster.py rounds in the same way.
  view.stepOf = (place) => Math.max(0, Math.min(STEPS - 1, Math.round(place * 2.55)));

  // 256 colours as css texts, and as pixels of an ImageData on this machine.
  class Colours {
    constructor(packed, fade) {
      this.bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
      this.texts = [];
      const pixels = new Uint8ClampedArray(4 * STEPS);
      for (let step = 0; step < STEPS; step++) {
        const [red, green, blue] = this.bytes.subarray(3 * step, 3 * step + 3);
        // As in overlay.png, though less: low patches show the tissue, and can still be seen.
        const alpha = fade ? 0.12 + 0.88 * (step / (STEPS - 1)) ** 2 : 1;
        this.texts.push(`rgba(${red},${green},${blue},${alpha.toFixed(3)})`);
        pixels.set([red, green, blue, Math.round(255 * alpha)], 4 * step);
      }
      this.pixels = new Uint32Array(pixels.buffer);
    }
  }

  // The bar, pale where patches are hidden.
  function drawLegend(canvas, colours, threshold) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (let step = 0; step < STEPS; step++) {
      context.globalAlpha = step < view.stepOf(threshold) ? 0.15 : 1;
      const [red, green, blue] = colours.bytes.subarray(3 * step, 3 * step + 3);
      context.fillStyle = `rgb(${red},${green},${blue})`;
      context.fillRect((step * canvas.width) / STEPS, 0, canvas.width / STEPS + 1, canvas.height);
    }
    context.globalAlpha = 1;
  }

  view.Colours = Colours;
  view.drawLegend = drawLegend;
})();
