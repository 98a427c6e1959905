// The long table of every metric, which is made when it is opened, and its download.
(() => {
  "use strict";
  const { element } = evalrun;
  const metrics = JSON.parse(document.getElementById("metrics-data").textContent);
  const every = document.getElementById("every-metric");
  every.querySelector("button.csv").addEventListener("click", () => evalrun.download("metrics", [metrics.columns, ...metrics.rows]));
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
