// The table of patients: sorted by any column, filtered by text.
"use strict";
(() => {
  const view = (window.gimpView = window.gimpView || {});
  const VALUES = 1; // columns of an outcome; the others are beside the slide
  const order = new Intl.Collator("en", { numeric: true });
  const short = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(3)).toString());

  // Columns: title, value of a patient (text or number; null is last), text if it differs.
  function columnsOf({ folders, cases }) {
    const columns = [{ title: "Patient", value: (one) => one.case_id }];
    folders.forEach((folder, n) => {
      const of = (one) => one.maps[n] || {}, isAlone = folders.length === 1;
      const title = (text) => (isAlone ? text : `${folder.name}: ${text}`);
      if (folder.is_classes) {
        const isWrong = (one) => wrong(of(one));
        const head = isAlone ? "Predicted" : folder.name;
        columns.push({ title: head, value: (one) => of(one).prediction, isWrong });
        if (!isAlone) return;
        const certainty = (one) => (of(one).probabilities || {})[of(one).prediction];
        columns.push({ title: "Probability", value: certainty });
        return;
      }
      const known = cases.map(of).find((map) => map.probabilities) || { probabilities: {} };
      for (const name of Object.keys(known.probabilities).slice(0, VALUES))
        columns.push({ title: title(name), value: (one) => (of(one).probabilities || {})[name] });
    });
    const first = (one) => one.maps.find((map) => map) || {};
    const sum = (one) => (first(one).slides || []).reduce((total, slide) => total + slide.num_patches, 0);
    if (cases.some((one) => first(one).truth)) columns.push({ title: "Truth", value: (one) => first(one).truth });
    columns.push({ title: "Patches", value: sum, text: (one) => sum(one).toLocaleString("en") });
    columns.push({ title: "Highest ×", value: (one) => (first(one).attention || {}).highest_times_even });
    return columns;
  }

  const wrong = (map) => Boolean(map.truth && map.prediction && map.truth !== map.prediction);

  class CaseTable {
    constructor(catalogue, onChoose) {
      const { element } = view.dom;
      this.catalogue = catalogue;
      this.columns = columnsOf(catalogue);
      this.order = catalogue.cases.map((_, place) => place);
      const table = document.getElementById("case-table");
      this.body = table.tBodies[0];
      this.heads = this.columns.map((column, n) => {
        const button = element("button", { type: "button", textContent: column.title });
        button.addEventListener("click", () => this.sort(n));
        return element("th", { scope: "col" }, button);
      });
      table.tHead.append(element("tr", {}, ...this.heads));
      this.rows = catalogue.cases.map((one, place) => this.row(one, place, onChoose));
      this.body.append(...this.rows);
      this.field = document.getElementById("filter");
      this.field.addEventListener("input", () => this.filter());
      this.filter();
    }

    row(one, place, onChoose) {
      const { element } = view.dom;
      const cells = this.columns.map((column, n) => {
        const value = column.value(one), isNumber = typeof value === "number";
        const text = column.text ? column.text(one) : isNumber ? short(value) : value || "";
        if (n === 0) {
          const button = element("button", { type: "button", textContent: text });
          return element("th", { scope: "row" }, button);
        }
        const cell = element("td", { textContent: text, className: isNumber ? "number" : "" });
        if (column.isWrong && column.isWrong(one)) {
          cell.prepend(element("span", { className: "wrong", textContent: "≠ ", title: "Not the true class" }));
        }
        return cell;
      });
      const row = element("tr", {}, ...cells);
      row.addEventListener("click", () => onChoose(place));
      const slides = one.maps.flatMap((map) => (map ? map.slides.map((slide) => slide.slide_id) : []));
      row.dataset.text = [one.case_id, ...slides, row.textContent].join(" ").toLowerCase();
      return row;
    }

    sort(n) {
      const head = this.heads[n], falls = head.getAttribute("aria-sort") === "ascending";
      for (const other of this.heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const { value } = this.columns[n], { cases } = this.catalogue;
      const isGone = (found) => found === null || found === undefined;
      const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : order.compare(a, b));
      this.order.sort((left, right) => {
        const a = value(cases[left]), b = value(cases[right]);
        if (isGone(a) || isGone(b)) return isGone(a) - isGone(b); // unknown ones stay at the end
        return (falls ? -1 : 1) * compare(a, b);
      });
      this.body.append(...this.order.map((place) => this.rows[place]));
    }

    filter() {
      const text = this.field.value.trim().toLowerCase();
      for (const row of this.rows) row.hidden = !row.dataset.text.includes(text);
      const shown = this.rows.filter((row) => !row.hidden).length, all = this.rows.length;
      document.getElementById("shown").value = shown === all ? `${all}` : `${shown} of ${all}`;
    }

    mark(place) {
      this.rows.forEach((row, n) => row.classList.toggle("chosen", n === place));
      for (const row of this.rows) row.removeAttribute("aria-current");
      this.rows[place].setAttribute("aria-current", "true");
      this.rows[place].scrollIntoView({ block: "nearest" });
    }

    // The patient beside another in the order that is shown.
    beside(place, step) {
      const shown = this.order.filter((one) => !this.rows[one].hidden);
      return shown[shown.indexOf(place) + step];
    }
  }

  view.CaseTable = CaseTable;
  view.short = short;
})();
