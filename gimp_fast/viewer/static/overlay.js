// Patches as colours on one canvas over the slide, whatever their number.
"use strict";
(() => {
  const view = (window.gimpView = window.gimpView || {});
  const EXACT = 8000; // patches in sight that are drawn one by one; more come from a picture
  const RASTER = 2048; // pixels of the longer side of that picture
  const FINEST = 8; // pixels of a patch in it

  // All patches as a small picture: what many patches look like from afar.
  class Raster {
    constructor(patches) {
      const { left, top, right, bottom } = patches.box;
      const longest = Math.max(right - left, bottom - top);
      this.patches = patches;
      this.scale = Math.min(FINEST / patches.size, RASTER / longest);
      this.canvas = document.createElement("canvas");
      this.canvas.width = Math.max(1, Math.ceil((right - left) * this.scale));
      this.canvas.height = Math.max(1, Math.ceil((bottom - top) * this.scale));
      this.image = this.canvas.getContext("2d").createImageData(this.canvas.width, this.canvas.height);
      this.patchOf = this.places();
    }

    // The patch at each pixel, the highest where they overlap, by its place in the table plus 1.
    // It hides the others when it is hidden itself: the lower ones are hidden before it.
    places() {
      const { patches, scale } = this, { width, height } = this.canvas, { left, top } = patches.box;
      const found = new Uint32Array(width * height);
      for (const i of patches.rising) {
        const x = patches.x[i] - left, y = patches.y[i] - top;
        if (x !== x) continue;
        const x0 = Math.min(Math.round(x * scale), width - 1);
        const y0 = Math.min(Math.round(y * scale), height - 1);
        const x1 = Math.min(Math.max(Math.round((x + patches.size) * scale), x0 + 1), width);
        const y1 = Math.min(Math.max(Math.round((y + patches.size) * scale), y0 + 1), height);
        for (let row = y0; row < y1; row++) found.fill(i + 1, row * width + x0, row * width + x1);
      }
      return found;
    }

    // `pixelOf` gives the pixel of a patch by its place in the table; 0 leaves it out.
    paint(pixelOf) {
      const { patches, patchOf, image } = this;
      const ofPatch = new Uint32Array(patches.length + 1);
      for (let i = 0; i < patches.length; i++) ofPatch[i + 1] = pixelOf(i);
      const pixels = new Uint32Array(image.data.buffer);
      for (let place = 0; place < pixels.length; place++) pixels[place] = ofPatch[patchOf[place]];
      this.canvas.getContext("2d").putImageData(image, 0, 0);
      return this.canvas;
    }
  }

  class Overlay {
    // `toScreen()` gives {left, top, scale}: where level 0 begins on the screen, and css pixels of
    // the screen per pixel of level 0.
    constructor(parent, toScreen) {
      this.toScreen = toScreen;
      this.canvas = document.createElement("canvas");
      this.canvas.className = "overlay";
      parent.append(this.canvas);
      this.patches = null;
    }

    // New patches and their picture, null where nothing can be drawn; drawn by `show`.
    use(patches, raster) {
      Object.assign(this, { patches, raster });
      this.isPainted = false;
    }

    // settings: column of places, threshold, colours, opacity, on.
    show(settings) {
      const { column, threshold, colours } = settings, old = this.settings || {};
      if (old.column !== column || old.threshold !== threshold || old.colours !== colours)
        this.isPainted = false;
      this.settings = settings;
      this.canvas.style.opacity = settings.on ? settings.opacity : 0;
      this.draw();
    }

    draw() {
      const { canvas, raster, settings } = this;
      const ratio = window.devicePixelRatio || 1;
      const width = Math.round(canvas.clientWidth * ratio);
      const height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, width, height);
      if (!raster || !settings || !settings.on) return;
      const { left, top, scale } = this.toScreen();
      const place = { left: left * ratio, top: top * ratio, scale: scale * ratio };
      const seen = this.inSight(place, width, height);
      if (seen) this.drawEach(context, seen, place);
      else this.drawRaster(context, place);
    }

    // Places of patches that are on the screen, the highest last; null if there are too many.
    inSight({ left, top, scale }, width, height) {
      const { patches } = this, { column, threshold } = this.settings;
      const values = patches[column], seen = [];
      const x0 = -left / scale - patches.size, x1 = (width - left) / scale;
      const y0 = -top / scale - patches.size, y1 = (height - top) / scale;
      for (const i of patches.rising) {
        const x = patches.x[i], y = patches.y[i];
        if (!(x > x0 && x < x1 && y > y0 && y < y1) || values[i] < threshold) continue;
        if (seen.length === EXACT) return null;
        seen.push(i);
      }
      return seen;
    }

    drawEach(context, seen, { left, top, scale }) {
      const { patches } = this, { column, colours } = this.settings;
      for (const i of seen) {
        const x0 = Math.round(left + patches.x[i] * scale);
        const y0 = Math.round(top + patches.y[i] * scale);
        const x1 = Math.max(Math.round(left + (patches.x[i] + patches.size) * scale), x0 + 1);
        const y1 = Math.max(Math.round(top + (patches.y[i] + patches.size) * scale), y0 + 1);
        context.clearRect(x0, y0, x1 - x0, y1 - y0); // where patches overlap, the highest is seen
        context.fillStyle = colours.texts[view.stepOf(patches[column][i])];
        context.fillRect(x0, y0, x1 - x0, y1 - y0);
      }
    }

    drawRaster(context, { left, top, scale }) {
      const { patches, raster } = this, { column, threshold, colours } = this.settings;
      if (!this.isPainted) {
        const values = patches[column], pixels = colours.pixels;
        raster.paint((i) => (values[i] < threshold ? 0 : pixels[view.stepOf(values[i])]));
        this.isPainted = true;
      }
      const ratio = scale / raster.scale; // pixels of the screen per pixel of the picture
      context.imageSmoothingEnabled = ratio < 1;
      context.drawImage(
        raster.canvas,
        left + patches.box.left * scale,
        top + patches.box.top * scale,
        raster.canvas.width * ratio,
        raster.canvas.height * ratio,
      );
    }
  }

  // A picture of the patches in one colour, for a slide without an image.
  view.ground = (raster, colour) => {
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = colour;
    probe.fillRect(0, 0, 1, 1);
    const pixel = new Uint32Array(probe.getImageData(0, 0, 1, 1).data.buffer)[0];
    return { url: raster.paint(() => pixel).toDataURL(), width: raster.canvas.width / raster.scale };
  };
  view.Raster = Raster;
  view.Overlay = Overlay;
})();
