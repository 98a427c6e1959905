// The sample browser: filters over the index, a page of samples, one sample in full, all of it by keyboard.
(() => {
  "use strict";
  const { element, put, fixed, address, sampleSections, Store } = evalrun;
  const PAGE = 50;
  const HALF = 0.5;
  const frame = document.getElementById("browser");
  if (!frame || !document.getElementById("samples-index")) return;
  const by = (id) => document.getElementById(id);
  const list = by("list"), detail = by("sample"), search = by("search"), found = by("found");
  let store = null, shown = new Int32Array(0), page = 0, selected = -1, wanted = "all", turn = 0;
  let partner = null;       // by place, the same row's sample in the run that is compared with; null without one

  const number = (value) => value.toLocaleString("en");

  const KINDS = [
    ["all", "All", () => true],
    ["right", "Right", (at) => store.judged && store.ending(at) === "scored" && store.scores[at] >= HALF],
    ["wrong", "Wrong", (at) => store.judged && store.ending(at) === "scored" && store.scores[at] < HALF],
    ["unparsed", "Unparsed", (at) => store.ending(at) === "unparsed"],
    ["refused", "Refused", (at) => store.ending(at) === "refused"],
    ["failed", "Failed", (at) => store.ending(at) === "failed"],
    ["won", "Better here", (at) => partner !== null && partner[at] >= 0 && change(at) > 0],
    ["lost", "Worse here", (at) => partner !== null && partner[at] >= 0 && change(at) < 0],
    ["retried", "Retried", (at) => store.retried(at)],
    ["cached", "Cached", (at) => store.cached(at)],
  ];
  const ORDERS = [
    ["as asked", null],
    ["lowest score first", (a, b) => last(store.scores[a], store.scores[b], 1)],
    ["highest score first", (a, b) => last(store.scores[a], store.scores[b], -1)],
    ["greatest change first", (a, b) => last(Math.abs(change(a)), Math.abs(change(b)), -1)],
    ["slowest first", (a, b) => last(store.times[a], store.times[b], -1)],
  ];

  // How much better a sample is than its partner; NaN where one has no score. Failed ones have none.
  function change(at) {
    const other = partner === null ? -1 : partner[at];
    const by = other < 0 ? NaN : store.scores[at] - store.scores[other];
    return store.lower ? -by : by;
  }

  // Numbers in order; what has none comes last either way.
  function last(a, b, sign) {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  }

  function verdict(at) {
    const ending = store.ending(at);
    if (ending !== "scored") return ending;
    const score = store.scores[at];
    if (Number.isNaN(score)) return "unscored";
    return store.binary ? (score >= HALF ? "right" : "wrong") : `score ${fixed(score, 3)}`;
  }

  // Filters

  function options(select, names, chosen = () => filter()) {
    select.replaceChildren(...names.map((name, at) => {
      const option = element("option");
      option.value = String(at - 1);
      put(option, name);
      return option;
    }));
    select.addEventListener("change", chosen);
  }

  function makeFilters() {
    options(by("filter-run"), [`all ${store.runs.length} runs`, ...store.runs.map((run) => run.label)]);
    by("filter-run").parentElement.hidden = store.runs.length < 2;
    options(by("filter-other"), ["nothing", ...store.runs.map((run) => run.label)], () => {
      by("filter-diff").value = by("filter-other").value === "-1" ? "-1" : "1";
      filter(selected);
    });
    by("filter-other").parentElement.hidden = store.runs.length < 2;
    by("filter-range").hidden = store.binary;
    for (const name of ["filter-low", "filter-high"]) by(name).addEventListener("input", () => filter());
    options(by("filter-diff"), ["nothing", "the target", ...(store.runs.length < 2 ? [] : ["the other run"])], () => { if (selected >= 0) open(selected, false); });
    options(by("filter-order"), ["", ...ORDERS.map(([name]) => name)]);
    by("filter-order").remove(0);
    for (const group of store.groups) {
      const label = element("label");
      put(label, `${group.column} `);
      group.select = element("select");
      options(group.select, ["all", ...group.labels]);
      label.append(group.select);
      by("filter-groups").append(label);
    }
    for (const [kind, name] of KINDS) {
      const graded = { right: `${store.score} at least 0.5`, wrong: `${store.score} below 0.5` };
      const chip = element("button", "", store.binary ? name : graded[kind] || name);
      chip.type = "button";
      chip.dataset.kind = kind;
      chip.append(element("span"));
      chip.addEventListener("click", () => { wanted = kind; filter(); });
      by("chips").append(chip);
    }
    let pause = 0;
    search.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(filter, 180); });
    search.form.addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  }

  // The samples of the chosen run and groups, before kind and text.
  function candidates() {
    const run = Number(by("filter-run").value);
    const groups = store.groups.map(({ select, codes }) => [codes, Number(select.value) + 1]).filter(([, code]) => code > 0);
    const [start, end] = run < 0 ? [0, store.n] : [store.runs[run].start, store.runs[run].end];
    const [low, high] = ["filter-low", "filter-high"].map((name) => (by(name).value === "" ? null : Number(by(name).value)));
    const within = (score) => (low === null || score >= low) && (high === null || score <= high);
    const result = [];
    for (let at = start; at < end; at++) {
      if (groups.every(([codes, code]) => codes[at] === code) && within(store.scores[at])) result.push(at);
    }
    return result;
  }

  // Pair the shown runs with the one that is compared with; runs of other datasets have no partners.
  function pair() {
    const run = Number(by("filter-run").value), other = Number(by("filter-other").value);
    if (other < 0) { partner = null; return; }
    partner = new Int32Array(store.n).fill(-1);
    store.runs.forEach((each, at) => {
      if ((run >= 0 && at !== run) || at === other || each.dataset !== store.runs[other].dataset) return;
      const found = store.partners(at, other);
      for (let place = each.start; place < each.end; place++) partner[place] = found[place];
    });
  }

  function countKinds(places) {
    for (const [kind, , test] of KINDS) {
      const chip = by("chips").querySelector(`[data-kind="${kind}"]`);
      let count = 0;
      for (const at of places) if (test(at)) count++;
      chip.lastChild.textContent = number(count);
      chip.hidden = count === 0 && kind !== "all" && kind !== wanted;
      chip.setAttribute("aria-pressed", String(kind === wanted));
    }
  }

  async function filter(keep = -1) {
    const mine = ++turn;
    pair();
    if (partner === null && (wanted === "won" || wanted === "lost")) wanted = "all";
    const places = candidates();
    countKinds(places);
    const test = KINDS.find(([kind]) => kind === wanted)[2];
    let result = places.filter(test);
    const query = search.value.trim().toLowerCase();
    if (query) {
      result = await searched(result, query, mine);
      if (result === null) return;
    }
    const order = ORDERS[Number(by("filter-order").value)][1];
    if (order) result.sort(order);
    shown = Int32Array.from(result);
    found.textContent = shown.length ? `${number(shown.length)} of ${number(store.n)} samples` : "No sample fits these filters.";
    const at = keep >= 0 ? shown.indexOf(keep) : 0;
    page = Math.floor(Math.max(0, at) / PAGE);
    showPage();
    if (shown.length) open(shown[Math.max(0, at)], false); else detail.replaceChildren();
  }

  const SEARCHED = ["sample_id", "output", "answer", "target", "error", "prompt", "reasoning"];

  function holds(sample, query) {
    const has = (text) => typeof text === "string" && text.toLowerCase().includes(query);
    if (SEARCHED.some((name) => has(sample[name]))) return true;
    if (sample.messages && sample.messages.some(([, content]) => has(typeof content === "string" ? content : JSON.stringify(content)))) return true;
    return Object.keys(sample).some((name) => (name.startsWith("reason.") || name.startsWith("vars.")) && has(sample[name]));
  }

  // Those whose texts hold the query: chunk by chunk, so that the page stays alive; null when overtaken.
  async function searched(places, query, mine) {
    const result = [];
    const raw = JSON.stringify(query).slice(1, -1);
    let paused = performance.now();
    for (let at = 0; at < places.length;) {
      const chunk = store.chunkOf(places[at]);
      const start = store.chunkStart[chunk];
      const next = store.chunkStart[chunk + 1] ?? store.n;
      const text = await store.text(chunk);
      if (mine !== turn) return null;
      const rows = text.toLowerCase().includes(raw) ? JSON.parse(text) : null;
      for (; at < places.length && places[at] < next; at++) {
        if (rows && holds(store.made(rows, places[at] - start, places[at]), query)) result.push(places[at]);
      }
      if (performance.now() - paused > 60) {
        found.textContent = `Searching: ${number(at)} of ${number(places.length)} samples, ${number(result.length)} found`;
        await new Promise((resume) => setTimeout(resume));
        paused = performance.now();
        if (mine !== turn) return null;
      }
    }
    return result;
  }

  // The page of samples

  function showPage() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(0, page), pages - 1);
    by("page").textContent = `page ${number(page + 1)} of ${number(pages)}`;
    by("page-back").disabled = page === 0;
    by("page-on").disabled = page === pages - 1;
    list.replaceChildren(...[...shown.slice(page * PAGE, (page + 1) * PAGE)].map(listItem));
    list.scrollTop = 0;
    markSelected();
  }

  function listItem(at) {
    const item = element("li");
    item.id = `sample-${at}`;
    item.setAttribute("role", "option");
    item.dataset.at = at;
    const top = element("div", "top"), line = element("div", "line", "\u00a0");
    const kind = verdict(at);
    const name = element("span");
    top.append(name, element("span", `ending ${kind}`, kind));
    item.append(top, line);
    store.sample(at).then((sample) => {
      line.textContent = "";
      put(name, store.runs.length < 2 ? sample.sample_id : `${sample.sample_id} \u00b7 ${sample.run.label}`);
      const text = sample.output || sample.error || "";
      put(line, text.slice(0, 120).trim() || "(empty answer)");
    });
    return item;
  }

  function markSelected() {
    for (const item of list.children) item.setAttribute("aria-selected", String(Number(item.dataset.at) === selected));
    const item = by(`sample-${selected}`);
    if (!item) { list.removeAttribute("aria-activedescendant"); return; }
    list.setAttribute("aria-activedescendant", item.id);
    const top = item.offsetTop - list.offsetTop;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + item.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + item.offsetHeight - list.clientHeight;
  }

  function step(by_) {
    if (!shown.length) return;
    const place = Math.min(Math.max(0, shown.indexOf(selected) + by_), shown.length - 1);
    const there = Math.floor(place / PAGE);
    if (there !== page) { page = there; showPage(); }
    open(shown[place], true);
  }

  // One sample

  async function open(at, name) {
    selected = at;
    markSelected();
    const sample = await store.sample(at);
    const other = await against(at, sample);
    if (selected !== at) return;
    detail.replaceChildren(...sampleSections(store, sample, verdict(at), search.value.trim().toLowerCase(), other));
    detail.scrollTop = 0;
    if (name) remember(sample);
  }

  // What the output is compared with, word by word: {name, text}, or null for nothing.
  async function against(at, sample) {
    const which = Number(by("filter-diff").value);
    if (which < 0) return null;
    if (which === 0) return { name: "the target", text: sample.target === undefined || sample.target === null ? null : String(sample.target) };
    if (partner === null) return { name: "another run (choose one under \u201ccompare with\u201d)", text: null };
    const other = partner[at] < 0 ? null : await store.sample(partner[at]);
    const name = store.runs[Number(by("filter-other").value)].label;
    const same = other && other.sample_id === sample.sample_id;
    return { name, text: same && other.output ? other.output : null };
  }

  // Which difference is shown: none, against the target, against the other run; by key as by the list.
  function nextDiff() {
    const list = by("filter-diff");
    const last = partner === null ? 0 : 1;
    list.value = String(Number(list.value) >= last ? -1 : Number(list.value) + 1);
    if (selected >= 0) open(selected, false);
  }

  function remember(sample) {
    try { history.replaceState(null, "", address(sample)); } catch { /* some viewers forbid it */ }
  }

  // Keyboard and links

  function inView() {
    const box = frame.getBoundingClientRect();
    return box.top < innerHeight * 0.75 && box.bottom > innerHeight * 0.25;
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && typing === search) { search.value = ""; search.blur(); filter(); return; }
    if (typing) return;
    if (event.key === "/") { event.preventDefault(); frame.scrollIntoView({ block: "start" }); search.focus(); return; }
    if (event.key === "Escape") { wanted = "all"; search.value = ""; by("filter-low").value = ""; by("filter-high").value = ""; filter(selected); return; }
    if (!inView()) return;
    const inList = document.activeElement === list;
    if (event.key === "j" || (inList && event.key === "ArrowDown")) step(1);
    else if (event.key === "k" || (inList && event.key === "ArrowUp")) step(-1);
    else if (event.key === "d") nextDiff();
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") turnPage(event.key === "ArrowRight" ? 1 : -1);
    else return;
    event.preventDefault();
  }

  function turnPage(by_) {
    const before = page;
    page += by_;
    showPage();
    if (page !== before) open(shown[page * PAGE], true);
  }

  async function follow() {
    const match = /^#sample=([^/]*)\/([^/]*)\/(\d+)$/.exec(location.hash);
    if (!match) return false;
    let at = -1;
    try { at = await store.find(decodeURIComponent(match[1]), decodeURIComponent(match[2]), Number(match[3])); }
    catch { at = -1; }
    if (at < 0) { found.textContent = "The sample that the address names is not in this report."; return false; }
    if (!shown.includes(at)) { wanted = "all"; search.value = ""; by("filter-run").value = "-1"; by("filter-low").value = ""; by("filter-high").value = ""; for (const group of store.groups) group.select.value = "-1"; }
    await filter(at);
    by("samples").scrollIntoView();
    return true;
  }

  async function begin() {
    store = await Store.open();
    if (!store.n) return;
    frame.hidden = false;
    makeFilters();
    list.addEventListener("click", (event) => {
      const item = event.target.closest("li");
      if (item) open(Number(item.dataset.at), true);
    });
    by("page-back").addEventListener("click", () => turnPage(-1));
    by("page-on").addEventListener("click", () => turnPage(1));
    document.addEventListener("keydown", key);
    addEventListener("hashchange", follow);
    if (store.cut) by("cut").textContent = `Long texts are cut (the shortest to ${store.cut} letters) so that this page stays small; they are whole in the sweep's samples.parquet.`;
    if (!(await follow())) await filter();
    frame.dataset.ready = "true";
  }

  begin().catch((error) => {
    frame.hidden = false;
    frame.replaceChildren(element("p", "quiet", `The samples cannot be shown in this browser: ${error.message}`));
  });
})();
