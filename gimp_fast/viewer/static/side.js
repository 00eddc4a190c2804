// Beside the slide: numbers of a patch, the highest patches, the patient, the genes.
"use strict";
(() => {
  const view = (window.gimpView = window.gimpView || {});
  const by = (id) => document.getElementById(id);

  function facts(list, pairs) {
    const { element } = view.dom;
    list.replaceChildren(
      ...pairs.flatMap(([name, text]) => [
        element("dt", { textContent: name }),
        element("dd", { textContent: text }),
      ]),
    );
  }

  // A row with a bar; values below zero go to the left of the middle.
  function bar(name, value, largest, text, isSigned) {
    const { element } = view.dom;
    const fill = element("i", { className: value < 0 ? "against" : "" });
    const width = largest ? (Math.abs(value) / largest) * (isSigned ? 50 : 100) : 0;
    fill.style.width = `${width}%`;
    fill.style.marginLeft = isSigned ? `${value < 0 ? 50 - width : 50}%` : "0";
    return element(
      "li",
      { title: `${name}: ${text}` },
      element("span", { className: "name", textContent: name }),
      element("span", { className: isSigned ? "bar signed" : "bar" }, fill),
      element("span", { className: "number", textContent: text }),
    );
  }

  function bars(title, note, rows) {
    const { element } = view.dom;
    const list = element("ul", { className: "bars-list" }, ...rows);
    return [element("h3", { textContent: title }), element("p", { className: "soft", textContent: note }), list];
  }

  view.showPatch = (patches, i) => {
    by("patch").hidden = i < 0;
    if (i < 0) return;
    const where = patches.x[i] === patches.x[i] ? `${patches.x[i]}, ${patches.y[i]} ${patches.unit}` : "unknown";
    facts(by("patch-facts"), [
      ["Rank", `${patches.rank[i].toLocaleString("en")} of ${patches.length.toLocaleString("en")}`],
      ["Times an even share", view.short(patches.times_even[i])],
      ["Percentile", patches.percentile[i].toFixed(1)],
      ["Place", where],
      ["Row in the file", patches.row[i] < 0 ? "unknown" : patches.row[i]],
    ]);
  };

  view.showTop = (patches, cropOf, onChoose) => {
    const { element } = view.dom;
    const count = patches ? Math.min(view.catalogue.listed, patches.length) : 0;
    const rows = [];
    for (let rank = 1; rank <= count; rank++) {
      const i = patches.ofRank(rank);
      const button = element("button", { type: "button" });
      button.dataset.patch = i;
      const url = cropOf(i);
      if (url) button.append(element("img", { src: url, alt: "", loading: "lazy", width: 80, height: 80 }));
      const stands = patches.times_even[i] >= view.catalogue.stands_out;
      const text = `${view.short(patches.times_even[i])} ×`;
      button.append(element("span", { textContent: `#${rank}` }), element("span", { textContent: text, className: stands ? "strong" : "soft" }));
      button.addEventListener("click", () => onChoose(i));
      rows.push(element("li", {}, button));
    }
    by("top").replaceChildren(...rows);
    const least = view.catalogue.stands_out;
    by("top-note").textContent = count
      ? `Times an even share; bold: ${least} or more, which stands out.`
      : "None.";
  };

  view.markTop = (i) => {
    for (const button of by("top").querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.dataset.patch === String(i)));
  };

  view.showCase = (one, map, folder) => {
    const { element } = view.dom, parts = [];
    by("case-title").textContent = one.case_id;
    if (!map) {
      by("case-facts").replaceChildren(element("p", { textContent: "Not in this folder." }));
      return;
    }
    const pairs = [["Predicted", map.prediction || "unknown"]];
    if (map.truth) pairs.push(["Truth", map.truth]);
    const values = Object.entries(map.probabilities);
    // Numbers of an outcome have units of their own: no bars.
    if (!folder.is_classes) pairs.push(...values.map(([name, value]) => [name, view.short(value)]));
    pairs.push(["Model", [folder.method, folder.target].filter(Boolean).join(", ")]);
    pairs.push(["Weights", folder.attribution]);
    const list = element("dl");
    facts(list, pairs.filter(([, text]) => text));
    parts.push(list);
    if (map.attention && map.attention.flat) {
      const text = `Effectively flat: the highest patch has ${view.short(map.attention.highest_times_even)} times an even share. The model reads all patches alike.`;
      parts.push(element("p", { className: "note warn", textContent: text }));
    }
    if (folder.is_classes) {
      const falling = values.sort(([, a], [, b]) => b - a);
      const rows = falling.map(([name, value]) => bar(name, value, 1, value.toFixed(3)));
      parts.push(element("ul", { className: "bars-list" }, ...rows));
    }
    const notes = new Set(map.slides.flatMap((slide) => slide.notes));
    // The first of them is said above.
    const others = [...notes].filter((note) => !note.startsWith("Effectively flat"));
    for (const note of others) parts.push(element("p", { className: "soft", textContent: note }));
    by("case-facts").replaceChildren(...parts);
  };

  view.showGenes = (genes) => {
    const { element } = view.dom;
    if (!genes || !genes.genes.length) {
      const text = "The model read no genes of this patient.";
      by("genes").replaceChildren(element("p", { className: "soft", textContent: text }));
      return;
    }
    const largest = Math.max(...genes.genes.map((gene) => Math.abs(gene.gradient || 0)));
    const rows = genes.genes.map((gene) => bar(gene.name, gene.gradient || 0, largest, view.short(gene.gradient), true));
    const parts = bars("Gradient × input", "To the right: speaks for what is predicted.", rows);
    if (genes.fragments.length) {
      const most = Math.max(...genes.fragments.map((one) => one.times_even));
      const named = (one) => `${one.name}: ${one.genes.join(", ")}${one.count > one.genes.length ? " …" : ""}`;
      const all = genes.fragments.map((one) => bar(named(one), one.times_even, most, `${view.short(one.times_even)} ×`));
      parts.push(...bars("Groups of genes", "Attention, times an even share.", all));
    }
    by("genes").replaceChildren(...parts);
  };
})();
