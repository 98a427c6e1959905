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

  function download(name, rows) {
    const text = rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  evalrun.download = download;
  for (const button of document.querySelectorAll("button.csv[data-name]")) {
    const table = button.parentElement.querySelector("table");
    if (!table) continue;
    button.addEventListener("click", () => {
      download(button.dataset.name, [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)));
    });
  }
})();
