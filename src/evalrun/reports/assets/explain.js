// Explanations: what each word adds to one token of the answer, and maps of attention.
(() => {
  "use strict";
  for (const said of document.querySelectorAll(".why-text .unseen")) said.parentElement.title = said.textContent.trim().slice(1, -1);
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const shadeOf = (value, most) => {
    if (!most || Math.abs(value) < most / 16) return "";
    return (value > 0 ? "p" : "m") + Math.max(1, Math.round(Math.abs(value) / most * 8));
  };
  for (const group of document.querySelectorAll(".why-tokens")) {
    const words = [...group.closest(".why").querySelectorAll("[data-at]")];
    const kept = words.map(word => word.className);
    const values = new Int8Array(bytes(group.dataset.rows).buffer);
    const tokens = values.length / Number(group.dataset.units);
    group.addEventListener("click", event => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      const token = Number(button.dataset.token);
      words.forEach((word, number) => {
        if (token < 0) {
          word.className = kept[number];
          return;
        }
        const shade = shadeOf(values[Number(word.dataset.at) * tokens + token], 127);
        word.className = shade ? "w " + shade : "w";
      });
    });
  }
  const inflate = async text => new Uint8Array(await new Response(
    new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  const share = step => (step / 15) ** 2;
  // A row of shares: without the first token where that is wished, and then of the rest.
  const rowOf = (data, base, size, first) => {
    const line = Array.from({length: size}, (_, at) => first && !at ? 0 : share(data[base + at]));
    const total = first ? line.reduce((sum, value) => sum + value, 0) || 1 : 1;
    return line.map(value => value / total);
  };
  const paint = (canvas, lines, width, height, ink) => {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    lines.forEach(({x, y, w, h, values}) => values.forEach((value, at) => {
      if (!value) return;
      context.fillStyle = `rgba(${ink}, ${Math.min(1, Math.sqrt(value))})`;
      context.fillRect(x + at * w, y, w, h);
    }));
  };
  for (const part of document.querySelectorAll(".why-attention")) {
    const number = name => Number(part.dataset[name]);
    const layers = number("layers"), heads = number("heads"), size = number("size"), made = number("made");
    const labels = [...part.querySelectorAll(".why-labels li")].map(item => item.textContent);
    const option = (where, at, value) => part.querySelector(`[data-what=${where}]`).add(new Option(at + 1, value));
    for (let at = 0; at < layers; at++) option("layer", at, at);
    for (let at = 0; at < heads; at++) option("head", at, at);
    const chosen = name => part.querySelector(`[data-what=${name}]`);
    const all = part.querySelector(".why-heads"), map = part.querySelector(".why-map");
    const cell = Math.max(1, Math.floor(1024 / (heads * size))), high = 8;
    let answer = null, means = null, lines = [];
    const draw = () => {
      part.dataset.drawn = "";
      const ink = getComputedStyle(part).getPropertyValue("--shade").trim(), first = chosen("first").checked;
      const strips = [];
      for (let at = 0; at < layers * heads; at++) {
        const x = (at % heads) * (size * cell + 4), y = Math.floor(at / heads) * high;
        strips.push({x, y, w: cell, h: high - 1, values: rowOf(answer, at * made * size, size, first)});
      }
      paint(all, strips, heads * (size * cell + 4), layers * high, ink);
      const layer = chosen("layer").selectedIndex, head = Number(chosen("head").value), one = head >= 0;
      const rows = one ? made : size, data = one ? answer : means;
      const base = one ? (layer * heads + head) * made * size : Math.floor(layer / number("span")) * size * size;
      lines = Array.from({length: rows}, (_, row) => rowOf(data, base + row * size, size, first));
      const step = 1024 / size, tall = one ? 24 : step;
      paint(map, lines.map((values, row) => ({x: 0, y: row * tall, w: step, h: tall, values})), 1024, rows * tall, ink);
    };
    part.addEventListener("toggle", async () => {
      if (!part.open) return;
      answer = answer || await inflate(part.dataset.answer);
      means = means || await inflate(part.dataset.means);
      draw();
    });
    part.addEventListener("change", () => answer && draw());
    all.addEventListener("click", event => {
      const box = all.getBoundingClientRect();
      chosen("layer").selectedIndex = Math.min(layers - 1, Math.floor((event.clientY - box.top) / box.height * layers));
      chosen("head").value = String(Math.min(heads - 1, Math.floor((event.clientX - box.left) / box.width * heads)));
      draw();
    });
    map.addEventListener("pointermove", event => {
      const box = map.getBoundingClientRect(), from = lines.length === size ? 0 : number("first") - 1;
      const at = Math.floor((event.clientX - box.left) / box.width * size);
      const row = Math.floor((event.clientY - box.top) / box.height * lines.length);
      if (!lines[row] || !(at in labels)) return;
      const said = `${labels[from + row]} looks at ${labels[at]}: ${Math.round(lines[row][at] * 100)} %`;
      part.querySelector("output").textContent = said;
    });
  }
})();
