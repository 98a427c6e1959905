// Explanations: what each word adds to one token of the answer, and maps of attention.
(() => {
  "use strict";
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const shadeOf = (value, most) => {
    if (!most || Math.abs(value) < most / 16) return "";
    return (value > 0 ? "p" : "m") + Math.max(1, Math.round(Math.abs(value) / most * 8));
  };
  for (const group of document.querySelectorAll(".why-tokens")) {
    const words = [...group.closest(".why").querySelectorAll("[data-at]")];
    const kept = words.map(word => [word.className, word.firstElementChild && word.firstElementChild.textContent]);
    const values = new Int8Array(bytes(group.dataset.rows).buffer);
    const tokens = values.length / Number(group.dataset.units);
    const mark = (word, text) => {
      let sign = word.querySelector("sup");
      if (!sign && text) {
        sign = document.createElement("sup");
        sign.setAttribute("aria-hidden", "true");
        word.prepend(sign);
      }
      if (sign) sign.textContent = text;
    };
    group.addEventListener("click", event => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      const token = Number(button.dataset.token);
      words.forEach((word, number) => {
        if (token < 0) {
          word.className = kept[number][0];
          mark(word, kept[number][1] && word.className !== "w" ? kept[number][1] : "");
          return;
        }
        const shade = shadeOf(values[Number(word.dataset.at) * tokens + token], 127);
        word.className = shade ? "w " + shade : "w";
        mark(word, shade ? (shade[0] === "p" ? "+" : "\u2212") : "");
      });
    });
  }
  const inflate = async text => new Uint8Array(await new Response(
    new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  const draw = (part, data) => {
    const size = Number(part.dataset.size), heads = Number(part.dataset.heads);
    const chosen = name => part.querySelector(`[data-what=${name}]`);
    const layer = chosen("layer").selectedIndex, head = Number(chosen("head").value), first = chosen("first").checked;
    const all = head < 0 ? [...Array(heads).keys()] : [head];
    const canvas = part.querySelector("canvas"), context = canvas.getContext("2d");
    const ink = getComputedStyle(part).getPropertyValue("--shade").trim();
    context.clearRect(0, 0, canvas.width, canvas.height);
    const cell = canvas.width / size;
    for (let row = 0; row < size; row++) {
      const line = new Float64Array(size);
      for (const one of all) {
        const base = ((layer * heads + one) * size + row) * size;
        for (let at = first ? 1 : 0; at <= row; at++) line[at] += data[base + at];
      }
      const total = line.reduce((sum, value) => sum + value, 0) || 1;
      for (let at = 0; at <= row; at++) {
        context.fillStyle = `rgba(${ink}, ${Math.sqrt(line[at] / total)})`;
        context.fillRect(at * cell, row * cell, cell, cell);
      }
    }
  };
  for (const part of document.querySelectorAll(".why-attention")) {
    let data = null;
    const labels = [...part.querySelectorAll(".why-labels li")].map(item => item.textContent);
    part.addEventListener("toggle", async () => {
      if (!part.open) return;
      data = data || await inflate(part.dataset.attention);
      draw(part, data);
    });
    part.addEventListener("change", () => data && draw(part, data));
    const canvas = part.querySelector("canvas");
    canvas.addEventListener("pointermove", event => {
      const size = Number(part.dataset.size), box = canvas.getBoundingClientRect();
      const at = Math.floor((event.clientX - box.left) / box.width * size);
      const row = Math.floor((event.clientY - box.top) / box.height * size);
      if (at >= 0 && row >= 0 && at < size && row < size) part.querySelector("output").textContent = `${labels[row]} looks at ${labels[at]}`;
    });
  }
})();
