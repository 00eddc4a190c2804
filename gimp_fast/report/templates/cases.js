(() => {
  const table = document.getElementById("case-table");
  const form = document.getElementById("case-filter");
  if (!table || !form) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const fields = form.elements;
  const filter = () => {
    const text = fields.text.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const visible =
        (!text || row.textContent.toLowerCase().includes(text)) &&
        (!fields.part.value || row.cells[1].textContent === fields.part.value) &&
        (!fields.wrong.checked || row.classList.contains("wrong")) &&
        (!fields.maps || !fields.maps.checked || row.querySelector("a"));
      row.hidden = !visible;
      shown += visible ? 1 : 0;
    }
    fields.shown.value = `${shown} of ${rows.length} cases`;
  };
  const order = new Intl.Collator("en", { numeric: true });
  const sort = (head, column) => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const text = (row) => row.cells[column].textContent;
    rows.sort((a, b) => (falling ? -1 : 1) * order.compare(text(a), text(b)));
    body.append(...rows);
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.dataset.title = head.textContent;
    button.addEventListener("click", () => sort(head, column));
    head.replaceChildren(button);
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
