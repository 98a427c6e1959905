// Tables that are sorted by a column.
(() => {
  "use strict";
  // What a row is sorted by: a figure or text of its cell, or what the row says of itself under a name.
  function key(row, column, name) {
    if (name) return name === "rank" ? Number(row.dataset.rank) : row.dataset[name];
    const cell = row.cells[column];
    const given = cell.dataset.sort;
    if (given === undefined) return cell.textContent.trim().toLowerCase();
    return given === "" ? null : Number(given);
  }

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  }

  function sort(table, header, name) {
    const column = header.cellIndex;
    if (header.dataset.by !== name) header.removeAttribute("aria-sort");
    if (name) header.dataset.by = name;
    const down = header.getAttribute("aria-sort") === "descending";
    const sign = down ? 1 : header.getAttribute("aria-sort") === "ascending" ? -1 : header.classList.contains("num") ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, column, name), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : sign * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      for (const button of header.querySelectorAll("button")) {
        button.addEventListener("click", () => sort(table, header, button.dataset.by));
      }
    }
  }
})();
