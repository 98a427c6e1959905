// Tables: sorting by a column, download as CSV, and the long table that is made when it is opened.
(() => {
  "use strict";
  const { element } = evalrun;

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

  // A spreadsheet takes a text that begins so for a formula: data from a model must not be one.
  const FORMULA = /^[=+\-@\t\r]/;
  const NUMBER = /^[+-]?[\d.,]+(e[+-]?\d+)?%?$/i;

  function field(value) {
    let text = String(value).replaceAll("\u2212", "-").trim();
    if (FORMULA.test(text) && !NUMBER.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function download(name, rows) {
    const text = rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const metrics = JSON.parse(document.getElementById("metrics-data").textContent);
  for (const button of document.querySelectorAll("button.csv")) {
    button.addEventListener("click", () => {
      if (button.dataset.name === "metrics") { download("metrics", [metrics.columns, ...metrics.rows]); return; }
      const table = button.parentElement.querySelector("table");
      download(button.dataset.name, [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)));
    });
  }

  const every = document.getElementById("every-metric");
  every.addEventListener("toggle", () => {
    const box = every.querySelector(".scroll");
    if (!every.open || box.firstChild) return;
    const numeric = new Set(metrics.numeric);
    const table = element("table");
    const head = table.createTHead().insertRow();
    metrics.columns.forEach((name, at) => {
      const cell = element("th", numeric.has(at) ? "num" : "", name);
      cell.scope = "col";
      head.append(cell);
    });
    const body = table.createTBody();
    for (const row of metrics.rows) {
      const line = body.insertRow();
      row.forEach((value, at) => {
        const cell = element(at ? "td" : "th", numeric.has(at) ? "num" : "");
        if (!at) cell.scope = "row";
        evalrun.put(cell, value);
        line.append(cell);
      });
    }
    box.append(table);
  });
})();
