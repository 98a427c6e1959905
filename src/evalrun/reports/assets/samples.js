// Which samples the grid shows: filters, order, columns, the open sample; all of it in the page's address.
(() => {
  "use strict";
  const { element, put, fixed, address, sampleSections, csv, save, Store, Grid } = evalrun;
  const HALF = 0.5;
  const COLUMNS = 6;        // so many runs are shown side by side to begin with
  const PAIR = "pair";      // compared with the run that a comparison holds it against
  const frame = document.getElementById("browser");
  if (!frame || !document.getElementById("samples-index")) return;
  const by = (id) => document.getElementById(id);
  const detail = by("sample"), drawer = by("drawer"), search = by("search"), found = by("found");
  let store = null, grid = null, table = null, turn = 0, open = -1, partner = null;
  let state = {};           // dataset, runs (numbers, in order), run, vs, kind, order, diff: what is not in a form
  const hits = { key: "", places: null }, laid = { key: "" }, filtered = { key: "", rows: null, cells: null };

  const number = (value) => value.toLocaleString("en");

  // What is said of a sample: bits of `cells`, in this order (see `told`).
  const KINDS = [
    ["right", "Right"], ["wrong", "Wrong"], ["unparsed", "Unparsed"], ["refused", "Refused"], ["failed", "Failed"],
    ["won", "Better"], ["lost", "Worse"], ["retried", "Retried"], ["cached", "Cached"],
  ];
  function told(at) {
    const { flags, scores, judged } = store, ending = flags[at] & 3, score = scores[at];
    let said = 1;
    if (ending) said |= 4 << ending;
    else if (judged && score >= HALF) said |= 2;
    else if (judged && score < HALF) said |= 4;
    const moved = partner === null ? 0 : change(at);
    if (moved > 0) said |= 64; else if (moved < 0) said |= 128;
    if (flags[at] & 16) said |= 256;
    if (flags[at] & 4) said |= 512;
    return said;
  }
  // What is said of a row.
  const ROWS = [["different", "Different scores"], ["answers", "Different answers"]];
  const ALL = [["all", "All"], ...ROWS, ...KINDS];
  const ORDERS = [
    ["as asked", null],
    ["lowest score first", (at) => store.scores[at]],
    ["highest score first", (at) => -store.scores[at]],
    ["greatest change first", (at) => -Math.abs(change(at))],
    ["slowest first", (at) => -store.times[at]],
  ];

  // How much better a sample is than the one it is compared with; NaN where one has no score.
  function change(at) {
    const other = partner === null ? -1 : partner[at];
    const more = other < 0 ? NaN : store.scores[at] - store.scores[other];
    return store.lower ? -more : more;
  }

  function same(at) {
    const other = partner === null ? -1 : partner[at];
    return other < 0 || store.answers[at] === store.answers[other];
  }

  function verdict(at) {
    const ending = store.ending(at);
    if (ending !== "scored") return ending;
    const score = store.scores[at];
    if (Number.isNaN(score)) return store.score ? "unscored" : "answered";
    return store.binary ? (score >= HALF ? "right" : "wrong") : `score ${fixed(score, 3)}`;
  }

  // Runs and columns

  const ofDataset = () => store.runs.map((_, at) => at).filter((at) => store.runs[at].dataset === state.dataset);
  const runCalled = (id) => store.runs.findIndex((run) => run.run === id);
  const otherOf = (run) => (state.vs === PAIR ? runCalled(store.runs[run].pair) : state.vs);

  function usual(run = -1) {
    const runs = ofDataset(), first = runs.slice(0, COLUMNS);
    const others = run >= 0 ? [otherOf(run), run].filter((at) => at >= 0 && runs.includes(at)) : [];
    if (others.length > 1) return others;
    return others.length && !first.includes(run) ? [...first.slice(0, COLUMNS - 1), run] : first;
  }

  function start(dataset) {
    const pairs = store.runs.some((run) => run.pair);
    state = { dataset: dataset ?? store.runs[0].dataset, runs: [], run: -1, vs: pairs ? PAIR : -1, kind: "all", groups: {} };
    state.runs = usual();
  }

  // The samples of the shown columns as rows, and each sample's partner.
  function lay() {
    const key = `${state.runs.join()} ${state.vs}`;
    if (laid.key === key) return;
    laid.key = key;
    const columns = [...new Set([...state.runs, ...state.runs.map(otherOf)])].filter((run) => run >= 0);
    table = store.table(columns);
    table.of = new Map(columns.map((run, at) => [run, table.columns[at]]));
    partner = null;
    if (state.vs === -1) return;
    partner = new Int32Array(store.n).fill(-1);
    for (const run of state.runs) {
      const other = otherOf(run);
      if (other < 0 || other === run) continue;
      const mine = table.of.get(run), theirs = table.of.get(other);
      for (let row = 0; row < table.size; row++) if (mine[row] >= 0) partner[mine[row]] = theirs[row];
    }
  }

  const considered = () => (state.run >= 0 ? [state.run] : state.runs);

  // Controls

  function fillSelect(select, entries, value) {
    select.replaceChildren(...entries.map(([key, text]) => {
      const option = element("option");
      option.value = String(key);
      put(option, text);
      return option;
    }));
    select.value = String(value);
  }

  function controls() {
    const runs = ofDataset(), names = runs.map((at) => [at, store.runs[at].label]);
    const datasets = [...new Set(store.runs.map((run) => run.dataset))];
    fillSelect(by("filter-dataset"), datasets.map((name) => [name, name]), state.dataset);
    by("filter-dataset").parentElement.hidden = datasets.length < 2;
    fillSelect(by("filter-score"), store.scorers.map(({ name }, at) => [at, name]), Math.max(0, store.scorers.findIndex(({ name }) => name === store.score)));
    by("filter-score").parentElement.hidden = store.scorers.length < 2;
    fillSelect(by("filter-run"), [[-1, "any run shown"], ...names], state.run);
    by("filter-run").parentElement.hidden = runs.length < 2;
    const pairs = runs.some((at) => store.runs[at].pair) ? [[PAIR, "its partner"]] : [];
    fillSelect(by("filter-other"), [[-1, "nothing"], ...pairs, ...names], state.vs);
    by("filter-other").parentElement.hidden = runs.length < 2;
    by("filter-range").hidden = store.binary;
    by("columns").hidden = runs.length < 2;
    by("columns").querySelector("div").replaceChildren(...names.map(([at, text]) => {
      const label = element("label"), box = element("input");
      box.type = "checkbox";
      box.value = String(at);
      box.checked = state.runs.includes(at);
      label.append(box);
      put(label, ` ${text}`);
      return label;
    }));
    for (const group of store.groups) group.select.selectedIndex = group.labels.indexOf(state.groups[group.column]) + 1;
  }

  function make() {
    fillSelect(by("filter-diff"), [[-1, "nothing"], [0, "the target"], [1, "the other run"]], -1);
    fillSelect(by("filter-order"), ORDERS.map(([name], at) => [at, name]), 0);
    fillSelect(by("filter-column"), [["", "every text"], ...store.columns.map((name) => [name, name.replace(/^vars\./, "")])], "");
    for (const group of store.groups) {
      const label = element("label");
      put(label, `${group.column} `);
      group.select = element("select");
      fillSelect(group.select, [["", "all"], ...group.labels.map((name) => [name, name || "(empty)"])], "");
      group.select.addEventListener("change", () => {
        // By place: a label may be the empty text.
        state.groups[group.column] = group.labels[group.select.selectedIndex - 1];
        changed();
      });
      label.append(group.select);
      by(group.sensitive ? "filter-groups" : "filter-columns").append(label);
    }
    by("more-filters").hidden = store.groups.every(({ sensitive }) => sensitive);
    for (const [kind] of ALL) {
      const chip = element("button");
      chip.type = "button";
      chip.dataset.kind = kind;
      chip.append(element("b"), element("span"));
      chip.addEventListener("click", () => { state.kind = kind; changed(); });
      by("chips").append(chip);
    }
    const on = (id, act) => by(id).addEventListener("change", () => { act(by(id).value); changed(); });
    on("filter-dataset", (value) => start(value));
    on("filter-score", (value) => store.use(Number(value)));
    on("filter-run", (value) => { state.run = Number(value); if (state.run >= 0 && !state.runs.includes(state.run)) state.runs.push(state.run); });
    on("filter-other", (value) => {
      state.vs = value === PAIR ? PAIR : Number(value);
      by("filter-diff").value = state.vs === -1 ? "-1" : "1";
      if (typeof state.vs === "number" && state.vs >= 0 && !state.runs.includes(state.vs)) state.runs.push(state.vs);
    });
    on("filter-order", () => {});
    on("filter-column", () => {});
    by("columns").addEventListener("change", (event) => {
      const chosen = [...by("columns").querySelectorAll("input:checked")].map((box) => Number(box.value));
      if (!chosen.length) { event.target.checked = true; return; }
      state.runs = chosen;
      if (!chosen.includes(state.run)) state.run = -1;
      changed();
    });
    by("filter-diff").addEventListener("change", () => { if (open >= 0) show(open); });
    for (const name of ["filter-low", "filter-high"]) by(name).addEventListener("input", () => changed());
    let pause = 0;
    search.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(changed, 180); });
    search.form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
    by("close").addEventListener("click", shut);
    by("clear").addEventListener("click", clear);
    for (const format of ["csv", "jsonl"]) by(`save-${format}`).addEventListener("click", () => saveRows(format));
  }

  // Filters

  const limit = (id) => (by(id).value === "" ? null : Number(by(id).value));

  // For each sample of the columns that are looked at, the bits of what is said of it; 0 where a filter leaves it out.
  function bits() {
    const cells = new Uint16Array(store.n);
    const groups = store.groups.map(({ column, labels, codes }) => [codes, labels.indexOf(state.groups[column]) + 1]).filter(([, code]) => code > 0);
    const low = limit("filter-low"), high = limit("filter-high");
    for (const run of considered()) {
      const { start, end } = store.runs[run];
      for (let at = start; at < end; at++) {
        if (groups.some(([codes, code]) => codes[at] !== code)) continue;
        const score = store.scores[at];
        if ((low !== null && !(score >= low)) || (high !== null && !(score <= high))) continue;
        cells[at] = told(at);
      }
    }
    return cells;
  }

  // Whether the shown runs differ in a row: in how they ended or scored, and in what they answered.
  function differs(row) {
    let scores = false, answers = false, first = -1;
    for (const run of state.runs) {
      const at = table.of.get(run)[row];
      if (at < 0) continue;
      if (first < 0) { first = at; continue; }
      const one = store.scores[first], other = store.scores[at];
      scores ||= (store.flags[first] & 3) !== (store.flags[at] & 3) || (one !== other && !(Number.isNaN(one) && Number.isNaN(other)));
      answers ||= store.answers[first] !== store.answers[at];
    }
    return (scores ? 1 : 0) | (answers ? 2 : 0);
  }

  // By row, what is said of it: bit 0 for being there, then ROWS, then KINDS.
  function rowBits(cells) {
    const rows = new Uint16Array(table.size), columns = considered().map((run) => table.of.get(run));
    for (let row = 0; row < table.size; row++) {
      let said = 0;
      for (const places of columns) if (places[row] >= 0) said |= cells[places[row]];
      if (said) rows[row] = 1 | ((said >> 1) << (1 + ROWS.length)) | (differs(row) << 1);
    }
    return rows;
  }

  function countKinds(rows) {
    const counts = new Array(ALL.length).fill(0);
    for (const said of rows) if (said) for (let bit = 0; bit < ALL.length; bit++) if (said & (1 << bit)) counts[bit]++;
    const graded = { right: `${store.score} at least 0.5`, wrong: `${store.score} below 0.5` };
    ALL.forEach(([kind, name], bit) => {
      const chip = by("chips").querySelector(`[data-kind="${kind}"]`);
      chip.firstChild.textContent = store.binary ? name : graded[kind] || name;
      chip.lastChild.textContent = number(counts[bit]);
      chip.hidden = counts[bit] === 0 && kind !== "all" && kind !== state.kind;
      chip.setAttribute("aria-pressed", String(kind === state.kind));
    });
  }

  // What is searched for: {key, text, has(text)}, null for nothing; throws where it is no regular expression.
  function query() {
    const text = search.value.trim(), column = by("filter-column").value;
    if (!text) return null;
    const pattern = /^\/(.+)\/([imsu]*)$/s.exec(text);
    if (pattern) {
      const made = new RegExp(pattern[1], pattern[2] || "i");
      return { key: `${text}\u0000${column}`, column, plain: null, mark: "", has: (value) => made.test(value) };
    }
    const low = text.toLowerCase();
    return { key: `${low}\u0000${column}`, column, plain: low, mark: low, has: (value) => value.toLowerCase().includes(low) };
  }

  const marked = () => { try { return query()?.mark ?? ""; } catch { return ""; } };

  function holds(sample, wanted) {
    const has = (value) => value !== undefined && value !== null && wanted.has(typeof value === "string" ? value : JSON.stringify(value));
    if (wanted.column === "prompt" && sample.messages) return sample.messages.some(([, content]) => has(content));
    if (wanted.column) return has(sample[wanted.column]);
    if (sample.messages && sample.messages.some(([, content]) => has(content))) return true;
    return store.columns.some((name) => has(sample[name]));
  }

  // Which samples of these runs hold what is searched for, chunk by chunk, so that the page stays alive; null when overtaken.
  async function searched(wanted, runs, mine) {
    const key = `${wanted.key}\u0000${runs.join()}`;
    if (hits.key === key) return hits.places;
    const places = new Uint8Array(store.n);
    const raw = wanted.plain === null || wanted.column ? null : JSON.stringify(wanted.plain).slice(1, -1);
    let paused = performance.now(), done = 0, seen = 0;
    const total = runs.reduce((sum, run) => sum + store.runs[run].end - store.runs[run].start, 0);
    for (const run of runs) {
      for (let at = store.runs[run].start; at < store.runs[run].end;) {
        const chunk = store.chunkOf(at), begin = store.chunkStart[chunk];
        const next = Math.min(store.chunkStart[chunk + 1] ?? store.n, store.runs[run].end);
        const text = await store.text(chunk);
        if (mine !== turn) return null;
        const rows = raw === null || text.toLowerCase().includes(raw) ? JSON.parse(text) : null;
        done += next - at;
        for (; at < next; at++) if (rows && holds(store.made(rows, at - begin, at), wanted)) { places[at] = 1; seen++; }
        if (performance.now() - paused > 60) {
          found.textContent = `Searching: ${number(done)} of ${number(total)} samples, ${number(seen)} found`;
          await new Promise((resume) => setTimeout(resume));
          paused = performance.now();
          if (mine !== turn) return null;
        }
      }
    }
    Object.assign(hits, { key, places });
    return places;
  }

  // The rows in the chosen order; what has no value comes last.
  function ordered(rows) {
    const key = ORDERS[Number(by("filter-order").value)][1];
    if (!key) return rows;
    const columns = considered().map((run) => table.of.get(run));
    const keys = new Float64Array(table.size).fill(Infinity);
    for (const row of rows) for (const places of columns) {
      const value = places[row] < 0 ? NaN : key(places[row]);
      if (value < keys[row]) keys[row] = value;
    }
    return [...rows].sort((a, b) => (keys[a] === keys[b] ? a - b : keys[a] - keys[b]));
  }

  // Show what the filters leave; keep the open sample open.
  async function filter() {
    const mine = ++turn;
    lay();
    if (partner === null && (state.kind === "won" || state.kind === "lost")) state.kind = "all";
    let wanted = null;
    try { wanted = query(); }
    catch (error) { found.textContent = `This is no regular expression: ${error.message}`; search.setAttribute("aria-invalid", "true"); return; }
    search.removeAttribute("aria-invalid");
    const key = unsorted();
    if (filtered.key !== key) {
      const cells = bits();
      if (wanted) {
        const places = await searched(wanted, considered(), mine);
        if (places === null) return;
        for (let at = 0; at < cells.length; at++) if (!places[at]) cells[at] = 0;
      }
      Object.assign(filtered, { key, rows: rowBits(cells), cells });
    }
    const said = filtered.rows;
    countKinds(said);
    const bit = 1 << ALL.findIndex(([kind]) => kind === state.kind);
    const rows = [];
    for (let row = 0; row < said.length; row++) if (said[row] & bit) rows.push(row);
    grid.show(table, Int32Array.from(ordered(rows)), state.runs.map((run) => ({ run, places: table.of.get(run) })));
    // Who goes down the rows means the run that is looked at.
    if (state.run >= 0) grid.active[1] = Math.max(0, state.runs.indexOf(state.run));
    const runs = state.runs.length > 1 ? ` in ${state.runs.length} runs` : "";
    found.textContent = rows.length ? `${number(rows.length)} of ${number(table.size)} samples${runs}` : "No sample fits these filters.";
    if (open >= 0) grid.find(open);
  }

  // The rows in sight as a file, a line a sample and run: of a filter by how answers ended only those that it means.

  // What a line says of a sample, by name.
  function line(at, sample) {
    const said = { run: sample.run.run, dataset: sample.run.dataset, sample_id: sample.sample_id, repeat: sample.repeat ?? 0, ending: store.ending(at) };
    for (const { name, values } of store.scorers) said[`score.${name}`] = Number.isNaN(values[at]) ? null : values[at];
    said.e2e_s = Number.isNaN(store.times[at]) ? null : Number(store.times[at].toPrecision(6));
    for (const { column, labels, codes } of store.groups) if (codes[at]) said[column] = labels[codes[at] - 1];
    if (sample.messages) said.messages = sample.messages.map(([role, content]) => ({ role, content }));
    for (const name of store.columns) if (!(name in said) && sample[name] !== undefined) said[name] = sample[name];
    return said;
  }

  async function saveRows(format) {
    const one = 2 << KINDS.findIndex(([kind]) => kind === state.kind), mine = turn;
    const columns = (one ? considered() : state.run >= 0 ? [state.run] : state.runs).map((run) => table.of.get(run));
    const places = [];
    for (const row of grid.rows) for (const column of columns) {
      const at = column[row];
      if (at >= 0 && (!one || filtered.cells[at] & one)) places.push(at);
    }
    const parts = [], heads = new Set(), lines = [];
    let paused = performance.now();
    // Samples of one chunk together, so that each is unpacked once; the lines keep the order of the grid.
    const order = [...places.keys()].sort((a, b) => places[a] - places[b]);
    for (let done = 0; done < order.length; done++) {
      const said = line(places[order[done]], await store.sample(places[order[done]]));
      if (format === "jsonl") lines[order[done]] = JSON.stringify(said);
      else { for (const name of Object.keys(said)) heads.add(name); lines[order[done]] = said; }
      if (performance.now() - paused < 60) continue;
      found.textContent = `Saving: ${number(done)} of ${number(order.length)} lines`;
      await new Promise((resume) => setTimeout(resume));
      if (mine !== turn) return;
      paused = performance.now();
    }
    const names = [...heads], plain = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : value);
    if (format === "jsonl") for (const each of lines) parts.push(each, "\n");
    else parts.push("\ufeff", csv([names, ...lines.map((said) => names.map((name) => plain(said[name])))]));
    const called = document.title.split(/[:,]/)[0].replace(/[^\w.-]+/g, "-").slice(0, 60) || "samples";
    save(`${called}-${state.kind === "all" ? "samples" : state.kind}.${format}`, parts, format === "csv" ? "text/csv" : "application/x-ndjson");
    found.textContent = `${number(lines.length)} lines saved.`;
  }

  async function changed() {
    controls();
    await filter();
    remember();
  }

  function clear() {
    search.value = by("filter-low").value = by("filter-high").value = "";
    by("filter-column").value = "";
    by("filter-order").value = "0";
    start(state.dataset);
    changed();
  }

  // One sample

  async function show(at) {
    const fresh = open < 0;
    open = at;
    const sample = await store.sample(at);
    const other = await against(at, sample);
    if (open !== at) return;
    drawer.hidden = false;
    document.body.classList.add("with-drawer");
    detail.replaceChildren(...sampleSections(store, sample, verdict(at), marked(), other));
    drawer.scrollTop = 0;
    remember(fresh);
  }

  function closed() {
    open = -1;
    drawer.hidden = true;
    document.body.classList.remove("with-drawer");
    detail.replaceChildren();
  }

  function shut() {
    closed();
    remember();
    by("grid").focus({ preventScroll: true });
  }

  // What the output is compared with, word by word: {name, text, verdict}, or null for nothing.
  async function against(at, sample) {
    const which = Number(by("filter-diff").value);
    if (which === 0) return { name: "the target", text: sample.target === undefined || sample.target === null ? null : String(sample.target) };
    if (which !== 1 || partner === null || partner[at] < 0) return null;
    const other = await store.sample(partner[at]);
    const same = other.sample_id === sample.sample_id;
    return { name: other.run.label, text: same ? other.output || other.error || "" : null, verdict: verdict(partner[at]) };
  }

  // Which difference is shown: none, against the target, against the other run; by key as by the list.
  function nextDiff() {
    const list = by("filter-diff");
    const last = partner === null ? 0 : 1;
    list.value = String(Number(list.value) >= last ? -1 : Number(list.value) + 1);
    if (open >= 0) show(open);
  }

  // The address: what is shown, so that it can be sent on. `#sample=run/id/repeat` opens one sample.

  function written() {
    const said = new URLSearchParams();
    const put_ = (name, value, plain) => { if (value !== plain && value !== "" && value !== undefined) said.set(name, value); };
    const usually = usual(state.run);
    put_("dataset", state.dataset, store.runs[0].dataset);
    if (state.runs.join() !== usually.join()) for (const run of state.runs) said.append("column", store.runs[run].run);
    if (state.run >= 0) said.set("run", store.runs[state.run].run);
    const pairs = store.runs.some((run) => run.pair);
    if (state.vs !== (pairs ? PAIR : -1)) said.set("vs", state.vs === PAIR ? PAIR : state.vs < 0 ? "" : store.runs[state.vs].run);
    put_("kind", state.kind, "all");
    put_("score", store.score, store.scorers[0]?.name ?? "");
    put_("q", search.value.trim());
    put_("in", by("filter-column").value);
    put_("low", by("filter-low").value);
    put_("high", by("filter-high").value);
    put_("order", by("filter-order").value, "0");
    for (const [column, label] of Object.entries(state.groups)) if (label !== undefined) said.set(`by.${column}`, label);
    return said;
  }

  // All that decides what is said of a row; not which rows of these are shown, and in which order.
  function unsorted() {
    const said = written();
    for (const name of ["kind", "order"]) said.delete(name);
    return `${said} ${state.runs} ${state.vs}`;
  }

  // `fresh`: a sample was opened where none was, so that Back closes it.
  async function remember(fresh = false) {
    const said = written();
    if (open >= 0) {
      const sample = await store.sample(open);
      said.set("open", [sample.run.run, sample.sample_id, sample.repeat ?? 0].map(encodeURIComponent).join("/"));
    }
    const text = [...said].length ? `#grid?${said}` : location.hash.startsWith("#grid") || location.hash.startsWith("#sample=") ? "#samples" : location.hash;
    if (text === location.hash) return;
    try { history[fresh ? "pushState" : "replaceState"](null, "", text || location.pathname); } catch { /* some viewers forbid it */ }
  }

  async function named(text) {
    const parts = text.split("/");
    if (parts.length !== 3) return -1;
    try { return await store.find(decodeURIComponent(parts[0]), decodeURIComponent(parts[1]), Number(parts[2])); }
    catch { return -1; }
  }

  function restore(said) {
    const run = runCalled(said.get("run") ?? "");
    start(run >= 0 ? store.runs[run].dataset : store.runs.some((each) => each.dataset === said.get("dataset")) ? said.get("dataset") : undefined);
    state.run = run;
    if (said.has("vs")) state.vs = said.get("vs") === PAIR ? PAIR : runCalled(said.get("vs"));
    const columns = said.getAll("column").map(runCalled).filter((at) => at >= 0 && store.runs[at].dataset === state.dataset);
    state.runs = columns.length ? columns : usual(run);
    if (ALL.some(([kind]) => kind === said.get("kind"))) state.kind = said.get("kind");
    store.use(Math.max(0, store.scorers.findIndex(({ name }) => name === said.get("score"))));
    search.value = said.get("q") ?? "";
    const choose = (id, value) => { by(id).value = value ?? ""; if (by(id).selectedIndex < 0) by(id).selectedIndex = 0; };
    choose("filter-column", said.get("in"));
    choose("filter-order", said.get("order"));
    by("filter-low").value = said.get("low") ?? "";
    by("filter-high").value = said.get("high") ?? "";
    for (const [name, value] of said) {
      const asked = name.startsWith("by.") ? name.slice(3) : null;
      const group = asked && store.groups.find(({ column, also, labels }) => (column === asked || also.includes(asked)) && labels.includes(value));
      if (group) state.groups[group.column] = value;
    }
    by("filter-diff").value = state.vs === -1 ? "-1" : "1";
  }

  // Go where the address says; true where it speaks of samples.
  async function follow() {
    const hash = location.hash, one = /^#sample=(.+)$/.exec(hash), many = /^#grid\??(.*)$/s.exec(hash);
    if (!one && !many) { if (open >= 0) closed(); return false; }
    const said = new URLSearchParams(many ? many[1] : "");
    const wanted = one ? one[1] : said.get("open");
    const at = wanted ? await named(wanted) : -1;
    if (one && at >= 0) said.set("run", store.runs[store.run[at]].run);
    restore(said);
    if (one) state.run = -1;
    if (at >= 0 && !state.runs.includes(store.run[at])) state.runs.push(store.run[at]);
    open = at;
    controls();
    await filter();
    if (at >= 0) await show(at); else if (!drawer.hidden) closed();
    if (wanted && at < 0) found.textContent = "The sample that the address names is not in this report.";
    by("samples").scrollIntoView();
    return true;
  }

  // Links to single samples that stand elsewhere on the page are called as the grid calls them.
  async function rename() {
    for (const link of document.querySelectorAll("a.one-sample")) {
      const at = await named(new URLSearchParams(link.hash.replace(/^#grid\??/, "")).get("open") ?? "");
      if (at < 0) continue;
      const name = evalrun.nameOf(await store.sample(at));
      if (name !== link.textContent) { link.replaceChildren(); put(link, name); }
    }
  }

  // Keyboard

  function inView() {
    const box = frame.getBoundingClientRect();
    return box.top < innerHeight * 0.75 && box.bottom > innerHeight * 0.25;
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && typing === search) { search.value = ""; search.blur(); changed(); return; }
    if (typing) return;
    if (event.key === "/") { event.preventDefault(); frame.scrollIntoView({ block: "start" }); search.focus(); return; }
    if (event.key === "Escape") { if (drawer.hidden) clear(); else shut(); return; }
    if (!inView()) return;
    const inGrid = document.activeElement === by("grid");
    const steps = { j: [1, 0], k: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], ...(inGrid ? { ArrowDown: [1, 0], ArrowUp: [-1, 0] } : {}) };
    if (steps[event.key]) { if (grid.step(...steps[event.key]) && (!drawer.hidden || event.key === "j" || event.key === "k")) show(grid.place()); }
    else if (event.key === "Enter" && inGrid && grid.place() >= 0) show(grid.place());
    else if (event.key === "d") nextDiff();
    else return;
    event.preventDefault();
  }

  async function begin() {
    store = await Store.open();
    if (!store.n) return;
    frame.hidden = false;
    grid = new Grid(by("grid"), store, { verdict, change, same, opened: (at) => show(at) });
    make();
    start();
    document.addEventListener("keydown", key);
    addEventListener("hashchange", follow);
    document.addEventListener("click", (event) => {
      // The drawer covers half of the page: who clicks elsewhere is done with it.
      if (!drawer.hidden && event.target.isConnected && !event.target.closest("#browser, a[href^='#grid'], a[href^='#sample=']")) shut();
    });
    const said = [];
    if (store.of) said.push(`Of ${store.of.toLocaleString("en")} samples these ${store.n.toLocaleString("en")} are shown, chosen by a checksum of their ids, the same ones in every run. All figures are of all samples, and all are in the sweep's samples.parquet (evalrun samples, evalrun sql).`);
    if (store.cut) said.push(`Long texts are cut (the shortest to ${store.cut} letters) so that this page stays small; they are whole in the sweep's samples.parquet.`);
    by("cut").textContent = said.join(" ");
    if (!(await follow())) { controls(); by("filter-diff").value = state.vs === -1 ? "-1" : "1"; await filter(); }
    frame.dataset.ready = "true";
    rename();
  }

  begin().catch((error) => {
    frame.hidden = false;
    frame.replaceChildren(element("p", "quiet", `The samples cannot be shown in this browser: ${error.message}`));
  });
})();
