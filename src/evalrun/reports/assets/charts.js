// Draws the charts. Colours in the specifications are CSS variables, so light, dark and paper need no redrawing.
(() => {
  "use strict";
  const { element } = evalrun;
  const tip = element("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);

  function tooltip(_handler, event, _item, value) {
    if (value === null || value === undefined || value === "") { tip.hidden = true; return; }
    tip.replaceChildren(...Object.entries(value).filter(([, text]) => text !== "").map(([name, text]) => {
      const line = element("div");
      line.append(element("span", "", name), element("span", "", String(text)));
      return line;
    }));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 14 + box.width > innerWidth ? event.clientX - 14 - box.width : event.clientX + 14;
    // Assigned through the CSSOM, which the content-security policy allows.
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - box.height - 4)}px`;
  }

  const OPTIONS = {
    mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, tooltip,
    // Expressions are interpreted, not compiled: the policy forbids eval.
    ast: true,
    // Errors only (vega.Error): a chart without any interval is no fault.
    logLevel: 1,
  };
  const views = [];

  const specs = JSON.parse(document.getElementById("chart-specs").textContent);

  // A point of a run leads to its samples.
  const index = document.getElementById("samples-index");
  const runs = index ? JSON.parse(index.textContent).runs : [];
  function leadOn(item) {
    const name = item && item.datum && item.datum.run;
    const run = name && runs.find(({ label }) => label === name || label.startsWith(`${name} \u00b7 `));
    if (run) location.hash = `#grid?${new URLSearchParams({ run: run.run })}`;
  }

  async function draw(boxes) {
    for (const box of boxes) {
      const spec = specs[box.dataset.chart];
      if (!spec || !window.vegaEmbed) continue;
      delete specs[box.dataset.chart];
      // A chart takes a tenth of a second: between two of them the page answers.
      await new Promise((resume) => setTimeout(resume));
      const label = box.getAttribute("aria-label");
      // In a narrow box a legend of many names goes on over several lines.
      if (box.clientWidth < 620) spec.config = { ...spec.config, legend: { ...spec.config.legend, columns: 2, labelLimit: box.clientWidth < 420 ? 130 : 220 } };
      try {
        box.replaceChildren();
        const { view } = await vegaEmbed(box, spec, OPTIONS);
        // The box is an image with a description; its hundreds of marks are not for a screen reader.
        box.setAttribute("aria-label", label);
        box.setAttribute("role", "img");
        const svg = box.querySelector("svg");
        if (svg) svg.setAttribute("aria-hidden", "true");
        view.addEventListener("click", (_event, item) => leadOn(item));
        views.push({ view, box });
      } catch (error) {
        box.replaceChildren(element("p", "quiet", `This chart could not be drawn: ${error.message}`));
      }
    }
  }

  // Paper is narrower than most windows: charts are laid out for it, not shrunk.
  const PAPER = { whole: 660, half: 320 };
  addEventListener("beforeprint", () => {
    for (const { view, box } of views) view.width(box.closest(".grid") && !box.closest(".wide") ? PAPER.half : PAPER.whole).run();
  });
  addEventListener("afterprint", () => {
    for (const { view, box } of views) view.width(box.clientWidth).run();
  });

  // What is folded away has no width to be drawn in; it is drawn when it is unfolded.
  const boxes = [...document.querySelectorAll("[data-chart]")];
  for (const fold of document.querySelectorAll("details.fold:has([data-chart])")) {
    fold.addEventListener("toggle", () => { if (fold.open) draw(fold.querySelectorAll("[data-chart]")); });
  }
  for (const section of document.querySelectorAll("main > section")) {
    section.addEventListener("unfolded", () => draw([...section.querySelectorAll("[data-chart]")].filter((box) => box.checkVisibility())));
  }
  draw(boxes.filter((box) => box.checkVisibility())).then(() => { document.documentElement.dataset.charts = "drawn"; });
})();
