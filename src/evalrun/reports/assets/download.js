// Download of a table as CSV.
(() => {
  "use strict";
  const { element } = evalrun;

  // A spreadsheet takes a text that begins so for a formula: data from a model must not be one.
  const FORMULA = /^[=+\-@\t\r]/;
  const NUMBER = /^[+-]?[\d.,]+(e[+-]?\d+)?%?$/i;

  function field(value) {
    let text = String(value).replaceAll("\u2212", "-").trim();
    if (FORMULA.test(text) && !NUMBER.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  const csv = (rows) => rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";

  // Save a file from its parts; nothing leaves the page.
  function save(name, parts, type) {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(parts, { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const download = (name, rows) => save(`${name}.csv`, ["\ufeff", csv(rows)], "text/csv");

  Object.assign(evalrun, { download, csv, save });
  for (const button of document.querySelectorAll("button.csv[data-name]")) {
    const table = button.parentElement.querySelector("table");
    if (!table) continue;
    button.addEventListener("click", () => {
      download(button.dataset.name, [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)));
    });
  }
})();
