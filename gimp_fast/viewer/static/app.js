// Ties all together: what is chosen, the controls, the keys.
"use strict";
(() => {
  const view = (window.gimpView = window.gimpView || {});
  const by = (id) => document.getElementById(id);
  const TABS = { map: "Overlay", patches: "Patches", case: "Summary", genes: "Genes", cases: "Patients" };

  class App {
    constructor(source, catalogue) {
      Object.assign(this, { source, catalogue, place: -1, active: 0, number: 0, palettes: {} });
      const heard = {
        onMove: (stage) => this.follow(stage),
        onPick: (stage, patch) => this.choose(stage, patch, false),
        onActive: (stage) => this.activate(this.stages.indexOf(stage)),
      };
      this.stages = catalogue.folders.map(
        (folder, n, all) =>
          new view.Stage(by("stages"), n, folder.name, source, heard, all.length === 1),
      );
      by("stages").style.setProperty("--across", Math.min(this.stages.length, 2));
      by("stages").classList.toggle("several", this.stages.length > 1);
      this.fillControls();
      this.makeTabs();
      this.table = new view.CaseTable(catalogue, (place) => this.show(place));
      by("synthetic").hidden = !catalogue.synthetic;
      const isSingle = catalogue.cases.length === 1;
      by("facts").textContent = [...new Set(catalogue.folders.map((one) => one.cohort))].filter(Boolean).join(", ");
      document.body.classList.toggle("single", isSingle);
      by("toggle-cases").hidden = by("previous").hidden = by("next").hidden = isSingle;
      by("previous").addEventListener("click", () => this.step(-1));
      by("next").addEventListener("click", () => this.step(1));
      by("toggle-cases").addEventListener("click", () => this.toggleCases());
      by("help").addEventListener("click", () => by("help-text").showModal());
      document.addEventListener("keydown", (event) => this.key(event));
    }

    // ---- the controls of the overlay

    fillControls() {
      const { element } = view.dom, { scales, colours } = this.catalogue;
      for (const [value, scale] of Object.entries(scales))
        by("scale").append(element("option", { value, textContent: scale.label }));
      for (const name of Object.keys(colours))
        by("colours").append(element("option", { value: name, textContent: name }));
      for (const id of ["overlay-on", "fade", "scale", "colours", "opacity", "threshold"])
        by(id).addEventListener("input", () => this.apply());
      by("scale").addEventListener("change", () => (this.isScaleChosen = true));
    }

    settings() {
      const name = by("colours").value, fade = by("fade").checked, key = `${name} ${fade}`;
      this.palettes[key] = this.palettes[key] || new view.Colours(this.catalogue.colours[name], fade);
      return {
        on: by("overlay-on").checked,
        column: this.catalogue.scales[by("scale").value].column,
        threshold: Number(by("threshold").value),
        opacity: by("opacity").value / 100,
        colours: this.palettes[key],
      };
    }

    apply() {
      const settings = this.settings(), scale = this.catalogue.scales[by("scale").value];
      for (const stage of this.stages) stage.overlay.show(settings);
      view.drawLegend(by("legend"), settings.colours, settings.threshold);
      const { element } = view.dom;
      by("ticks").replaceChildren(...scale.texts.map((text) => element("span", { textContent: text })));
      by("opacity-value").value = `${by("opacity").value} %`;
      const patches = this.stages[this.active].patches;
      const whole = (number) => number.toLocaleString("en");
      const { count, lowest } = patches ? patches.above(settings.column, settings.threshold) : { count: 0 };
      const hides = settings.threshold > 0;
      by("threshold-value").value = hides && count ? `${view.short(lowest)} ×` : hides ? "all" : "none hidden";
      by("counted").textContent = patches ? `${whole(count)} of ${whole(patches.length)} patches shown` : "";
    }

    // ---- what is shown

    async show(place) {
      this.place = place;
      const one = this.catalogue.cases[place];
      this.table.mark(place);
      by("title").textContent = one.case_id;
      by("previous").disabled = this.table.beside(place, -1) === undefined;
      by("next").disabled = this.table.beside(place, 1) === undefined;
      document.title = `${one.case_id} · heatmaps`;
      if (!this.catalogue.offline) history.replaceState(null, "", `#${encodeURIComponent(one.case_id)}`);
      const slides = [...new Set(one.maps.flatMap((map) => (map ? map.slides.map((s) => s.number) : [])))];
      await this.showSlide(slides[0], slides);
    }

    async showSlide(number, slides) {
      const one = this.catalogue.cases[this.place];
      this.number = number;
      this.fillSlides(slides);
      const [first] = one.maps.filter(Boolean);
      if (first && !this.isScaleChosen) by("scale").value = first.scale;
      await Promise.all(
        this.stages.map((stage, n) => {
          const map = one.maps[n];
          const slide = map && map.slides.find((candidate) => candidate.number === number);
          return stage.show(this.place, map, slide || null);
        }),
      );
      if (this.catalogue.cases[this.place] !== one || this.number !== number) return;
      this.apply();
      this.activate(one.maps[this.active] ? this.active : Math.max(0, one.maps.findIndex(Boolean)), true);
      document.documentElement.dataset.shown = `${one.case_id} ${number ?? "-"}`;
      view.milliseconds = view.milliseconds || performance.now();
    }

    fillSlides(slides) {
      const { element } = view.dom;
      const choice = element("select", { id: "slide" });
      choice.setAttribute("aria-label", "Slide");
      for (const number of slides)
        choice.append(element("option", { value: number, textContent: this.catalogue.slides[number] }));
      choice.value = this.number;
      choice.addEventListener("change", () => this.showSlide(Number(choice.value), slides));
      const old = by("slide");
      if (old) old.remove();
      if (slides.length > 1) by("title").after(choice);
    }

    // The folder whose patches, numbers and genes are beside the slides.
    activate(n, isNew = false) {
      if (this.place < 0 || (n === this.active && !isNew)) return;
      this.active = n;
      this.stages.forEach((stage, other) => stage.figure.classList.toggle("active", other === n));
      const one = this.catalogue.cases[this.place], map = one.maps[n], stage = this.stages[n];
      const { patches } = stage;
      const slide = map ? map.slides.findIndex((candidate) => candidate.number === this.number) : -1;
      const cropOf = (patch) =>
        this.catalogue.has_images ? this.source.crop(n, this.place, slide, patch) : null;
      view.showTop(patches, cropOf, (patch) => this.choose(stage, patch, true));
      view.showCase(one, map, this.catalogue.folders[n]);
      view.showPatch(patches, stage.chosen);
      view.markTop(stage.chosen);
      this.showGenes(map, n);
      this.apply();
    }

    async showGenes(map, n) {
      const { place } = this;
      let genes = null;
      try {
        genes = map && map.has_genes ? await this.source.genes(n, place) : null;
      } catch (error) {
        by("genes").textContent = error.message;
        return;
      }
      if (place === this.place && n === this.active) view.showGenes(genes);
    }

    choose(stage, patch, goes) {
      this.activate(this.stages.indexOf(stage));
      stage.choose(patch, goes);
      view.showPatch(stage.patches, patch);
      view.markTop(patch);
    }

    follow(stage) {
      for (const other of this.stages) if (other !== stage && stage.patches) other.follow(stage.position());
    }

    step(by) {
      const place = this.table.beside(this.place, by);
      if (place !== undefined) this.show(place);
    }

    stepTop(by) {
      const stage = this.stages[this.active], { patches } = stage;
      if (!patches || !patches.length) return;
      const rank = stage.chosen < 0 ? 0 : patches.rank[stage.chosen];
      const next = Math.max(1, Math.min(patches.length, rank + by));
      this.choose(stage, patches.ofRank(next), true);
    }

    // ---- keys, and the tabs of a narrow screen

    key(event) {
      const isTyping = event.target.closest("input[type=search], select, dialog");
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      const nudge = (id, step) => {
        by(id).value = Number(by(id).value) + step;
        this.apply();
      };
      const actions = {
        n: () => this.step(1),
        p: () => this.step(-1),
        j: () => this.stepTop(1),
        k: () => this.stepTop(-1),
        f: () => this.stages[this.active].fit(),
        o: () => by("overlay-on").click(),
        c: () => this.toggleCases(),
        "[": () => nudge("opacity", -10),
        "]": () => nudge("opacity", 10),
        ",": () => nudge("threshold", -5),
        ".": () => nudge("threshold", 5),
        "?": () => by("help-text").showModal(),
      };
      const action = actions[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    }

    toggleCases() {
      const isHidden = document.body.classList.toggle("without-cases");
      by("toggle-cases").setAttribute("aria-expanded", String(!isHidden));
    }

    makeTabs() {
      const { element } = view.dom;
      const choose = (name) => {
        document.body.dataset.tab = name;
        for (const tab of by("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.name === name));
      };
      for (const [name, title] of Object.entries(TABS)) {
        if (name === "cases" && this.catalogue.cases.length === 1) continue;
        const tab = element("button", { type: "button", textContent: title });
        tab.dataset.name = name;
        tab.setAttribute("role", "tab");
        tab.addEventListener("click", () => choose(name));
        by("tabs").append(tab);
      }
      choose("map");
    }
  }

  async function start() {
    const source = view.openSource();
    view.catalogue = await source.catalogue();
    const { cases } = view.catalogue;
    view.app = new App(source, view.catalogue);
    let asked = "";
    try {
      asked = decodeURIComponent(location.hash.slice(1));
    } catch {
      // An address that was cut short names nobody.
    }
    await view.app.show(Math.max(0, cases.findIndex((one) => one.case_id === asked)));
  }

  start().catch((error) => {
    by("failure").textContent = `The maps cannot be shown: ${error.message}`;
    by("failure").hidden = false;
    throw error;
  });
})();
