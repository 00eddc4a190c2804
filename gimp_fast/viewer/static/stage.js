// One slide of one folder of maps: deep zoom, the overlay, a marked patch, a scale bar.
"use strict";
(() => {
  const view = (window.gimpView = window.gimpView || {});
  const { element } = (view.dom = {
    // element("p", { className: "soft" }, "text", child …)
    element(tag, properties = {}, ...children) {
      const made = Object.assign(document.createElement(tag), properties);
      made.append(...children);
      return made;
    },
  });
  const MARGIN = 0.06; // of the tissue, around it
  const PATCH = 220; // css pixels of a patch that was asked for
  const CLOSEST = 4; // css pixels per pixel of level 0

  // A picture in one piece.
  const whole = (url) => ({ type: "image", url, buildPyramid: false });

  class Stage {
    // heard: onMove(stage), onPick(stage, patch), onActive(stage).
    constructor(parent, folder, name, source, heard, isAlone) {
      Object.assign(this, { folder, source, heard, turn: 0, width: 1, patches: null, chosen: -1 });
      this.caption = element("figcaption", {}, element("strong", { textContent: name }));
      this.facts = this.caption.appendChild(element("span", { className: "soft" }));
      this.field = element("div", { className: "field" });
      this.message = element("p", { className: "message", hidden: true });
      this.bar = element("div", { className: "scalebar" });
      this.marker = element("div", { className: "marker", hidden: true });
      const tools = element("div", { className: "tools" });
      for (const [sign, title, action] of [
        ["+", "Zoom in (+)", () => this.zoomBy(1.6)],
        ["−", "Zoom out (−)", () => this.zoomBy(1 / 1.6)],
        ["⤢", "Whole tissue (f)", () => this.fit()],
      ]) {
        const button = element("button", { type: "button", textContent: sign, title });
        button.setAttribute("aria-label", title);
        button.addEventListener("click", action);
        tools.append(button);
      }
      const frame = element("div", { className: "frame" }, this.field, tools, this.bar, this.message);
      this.figure = element("figure", { className: "stage" }, this.caption, frame);
      parent.append(this.figure);
      this.figure.addEventListener("pointerdown", () => heard.onActive(this), true);
      this.figure.addEventListener("focusin", () => heard.onActive(this));
      this.makeViewer(isAlone);
    }

    makeViewer(isAlone) {
      this.viewer = OpenSeadragon({
        element: this.field,
        drawer: "canvas",
        crossOriginPolicy: false,
        showNavigationControl: false,
        showNavigator: isAlone && window.matchMedia("(min-width: 760px)").matches,
        navigatorPosition: "BOTTOM_RIGHT",
        navigatorWidth: 150,
        navigatorHeight: 110,
        navigatorAutoFade: false,
        animationTime: window.matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.5,
        visibilityRatio: 0.2,
        gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
        gestureSettingsTouch: { pinchRotate: false, clickToZoom: false },
        gestureSettingsPen: { clickToZoom: false },
      });
      const { viewer } = this;
      viewer.canvas.setAttribute("aria-label", "Slide: arrows move, plus and minus zoom");
      viewer.canvas.setAttribute("role", "application");
      this.overlay = new view.Overlay(viewer.canvas, () => this.toScreen());
      viewer.canvas.append(this.marker);
      viewer.addHandler("update-viewport", () => this.redraw());
      viewer.addHandler("resize", () => requestAnimationFrame(() => this.redraw()));
      for (const event of ["zoom", "pan"])
        viewer.addHandler(event, () => this.isFollowing || this.heard.onMove(this));
      viewer.addHandler("canvas-click", (event) => {
        if (!event.quick || !this.patches) return;
        const { left, top, scale } = this.toScreen();
        const { x, y } = event.position;
        this.heard.onPick(this, this.patches.at((x - left) / scale, (y - top) / scale));
      });
      viewer.addHandler("canvas-key", (event) => {
        const { key } = event.originalEvent;
        event.preventDefaultAction = !/^(Arrow|[-+=_])/.test(key);
      });
    }

    // Where level 0 begins in css pixels of the field, and css pixels per pixel of level 0.
    toScreen() {
      const { viewport } = this.viewer, zero = new OpenSeadragon.Point(0, 0);
      const corner = viewport.pixelFromPoint(zero, true);
      const end = viewport.pixelFromPoint(new OpenSeadragon.Point(1, 0), true);
      return { left: corner.x, top: corner.y, scale: (end.x - corner.x) / this.width };
    }

    // Show a slide: `place` of the patient, `slide` in its record; null shows why there is none.
    async show(place, record, slide) {
      const turn = ++this.turn;
      this.clear();
      if (!slide) {
        this.say(record ? "Nothing was drawn of this patient's slides." : "Not in this folder.");
        return;
      }
      this.facts.textContent = slide.slide_id;
      this.say("Loading …");
      try {
        const [buffer, picture] = await Promise.all([
          this.source.buffer(this.folder, place, record.slides.indexOf(slide)),
          this.source.picture(slide.number),
        ]);
        if (turn !== this.turn) return;
        const patches = new view.Patches(buffer, view.catalogue.columns, slide);
        const raster = patches.box && new view.Raster(patches);
        const shown = slide.unit === "px" ? picture : { missing: "Places are in µm." };
        await this.lay(turn, patches, raster, shown);
        if (turn !== this.turn) return;
        this.patches = patches;
        this.overlay.use(patches, raster);
        if (shown.missing && patches.box) this.facts.textContent += ` · ${shown.missing}`;
        this.say(patches.box ? "" : "The feature file has no coordinates: nothing can be drawn.");
      } catch (error) {
        if (turn === this.turn) this.say(error.message);
      }
    }

    clear() {
      this.viewer.world.removeAll();
      this.overlay.use(null, null);
      this.overlay.draw();
      Object.assign(this, { patches: null, chosen: -1, mpp: null });
      this.facts.textContent = "";
      this.bar.textContent = "";
      this.bar.style.width = "";
      this.marker.hidden = true;
    }

    say(text) {
      this.message.textContent = text;
      this.message.hidden = !text;
      this.figure.classList.toggle("said", Boolean(text));
    }

    // Put the slide, or else the patches in grey, on the field, and show all of the tissue; nothing
    // if another slide is shown by then.
    async lay(turn, patches, raster, picture) {
      const { box } = patches;
      let item;
      if (picture.missing) {
        if (!box) return;
        this.width = box.right;
        const colour = getComputedStyle(this.figure).getPropertyValue("--tissue").trim();
        const ground = view.ground(raster, colour);
        const at = { x: box.left / this.width, y: box.top / this.width };
        item = { ...at, tileSource: whole(ground.url), width: ground.width / this.width };
      } else {
        this.width = picture.width;
        this.mpp = picture.mpp;
        const tiles = { width: picture.width, height: picture.height, tileSize: picture.tile };
        const levels = { minLevel: Math.min(8, picture.max_level), maxLevel: picture.max_level };
        const tileSource = picture.url
          ? whole(picture.url)
          : { ...tiles, ...levels, getTileUrl: picture.tileUrl };
        item = { x: 0, y: 0, width: 1, tileSource };
      }
      const added = await new Promise((resolve, reject) => {
        const error = (event) => reject(new Error(event.message || "The slide cannot be shown."));
        this.viewer.addTiledImage({ ...item, success: (event) => resolve(event.item), error });
      });
      if (turn !== this.turn) {
        this.viewer.world.removeItem(added);
        return;
      }
      const height = picture.missing ? box.bottom : picture.height;
      this.home = box || { left: 0, top: 0, right: this.width, bottom: height };
      const across = this.viewer.container.clientWidth || 1;
      const closest = Math.max(CLOSEST, PATCH / (patches.size || PATCH));
      this.viewer.viewport.maxZoomLevel = (closest * this.width) / across;
      this.viewer.viewport.minZoomLevel = 0.1;
      this.fit(true);
    }

    fit(immediately = false) {
      if (!this.home) return;
      // OpenSeadragon hears of a new size later.
      const { clientWidth, clientHeight } = this.field;
      this.viewer.viewport.resize(new OpenSeadragon.Point(clientWidth, clientHeight), false);
      const { left, top, right, bottom } = this.home;
      const margin = MARGIN * Math.max(right - left, bottom - top);
      const rectangle = [left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin];
      const bounds = new OpenSeadragon.Rect(...rectangle.map((length) => length / this.width));
      this.viewer.viewport.fitBounds(bounds, immediately);
    }

    zoomBy(factor) {
      this.viewer.viewport.zoomBy(factor);
      this.viewer.viewport.applyConstraints();
    }

    // Mark a patch, and zoom to it if `goes`.
    choose(patch, goes) {
      this.chosen = patch;
      if (goes && patch >= 0 && this.patches.x[patch] === this.patches.x[patch]) {
        const { patches, width, viewer } = this;
        const half = patches.size / 2;
        const point = [patches.x[patch] + half, patches.y[patch] + half].map((v) => v / width);
        const across = viewer.container.clientWidth / Math.max(PATCH / patches.size, 0.5);
        viewer.viewport.zoomTo(width / across);
        viewer.viewport.panTo(new OpenSeadragon.Point(...point));
      }
      this.redraw();
    }

    // What another stage must do to show the same place: the middle, and how much lies across.
    position() {
      const { viewport } = this.viewer, middle = viewport.getCenter(false);
      return { x: middle.x * this.width, y: middle.y * this.width, across: this.width / viewport.getZoom(false) };
    }

    follow({ x, y, across }) {
      if (!this.patches) return;
      this.isFollowing = true;
      this.viewer.viewport.zoomTo(this.width / across);
      this.viewer.viewport.panTo(new OpenSeadragon.Point(x / this.width, y / this.width));
      this.isFollowing = false;
    }

    redraw() {
      this.overlay.draw();
      if (!this.patches) return;
      const { left, top, scale } = this.toScreen(), { patches, chosen } = this;
      this.marker.hidden = chosen < 0 || patches.x[chosen] !== patches.x[chosen];
      if (!this.marker.hidden) {
        const side = Math.max(patches.size * scale, 10);
        const shift = (patches.size * scale - side) / 2;
        this.marker.style.width = this.marker.style.height = `${side}px`;
        const x = left + patches.x[chosen] * scale + shift, y = top + patches.y[chosen] * scale + shift;
        this.marker.style.transform = `translate(${x}px, ${y}px)`;
      }
      this.drawBar(scale);
    }

    // 1, 2 or 5 · 10ⁿ µm or pixels, at most 120 css pixels.
    drawBar(scale) {
      const um = this.patches.unit === "um" ? 1 : this.mpp;
      const perUnit = um ? scale / um : scale; // css pixels per µm or pixel
      const power = 10 ** Math.floor(Math.log10(120 / perUnit));
      const length = [5, 2, 1].map((step) => step * power).find((one) => one * perUnit <= 120);
      const unit = um ? "µm" : "px";
      this.bar.textContent = um && length >= 1000 ? `${length / 1000} mm` : `${length} ${unit}`;
      this.bar.style.width = `${length * perUnit}px`;
    }
  }

  view.Stage = Stage;
})();
