// A grid of samples: a row a sample, a column a run. Only the rows in sight are in the page.
(() => {
  "use strict";
  const { element, put } = evalrun;
  const OVER = 4;           // rows above and below those in sight
  const SHOWN = 260;        // letters of a text in a cell

  const HASH = /^[0-9a-f]{12,}$/;

  // What a row is called: its key, else the first words of what was asked.
  evalrun.inputOf = (sample) => {
    const column = sample.run.input;
    if (column && typeof sample[column] === "string" && sample[column].trim()) return sample[column].trim();
    const messages = sample.messages || [];
    const last = messages.length ? messages[messages.length - 1][1] : sample.prompt;
    return typeof last === "string" ? last.trim() : last ? JSON.stringify(last) : "";
  };
  evalrun.nameOf = (sample) => {
    if (!HASH.test(sample.sample_id)) return sample.sample_id;
    const words = evalrun.inputOf(sample).replace(/\s+/g, " ");
    return words.length > 60 ? `${words.slice(0, 60)} …` : words || sample.sample_id;
  };

  // `view` says what is in a cell: verdict(at), change(at), same(at), opened(at).
  class Grid {
    constructor(frame, store, view) {
      Object.assign(this, { frame, store, view, rows: new Int32Array(0), columns: [], active: [-1, 0], drawn: new Map() });
      this.head = element("div", "grid-head");
      this.head.setAttribute("role", "row");
      this.body = element("div", "grid-body");
      this.body.setAttribute("role", "rowgroup");
      const top = element("div");
      top.setAttribute("role", "rowgroup");
      top.append(this.head);
      frame.append(top, this.body);
      frame.addEventListener("scroll", () => this.later(), { passive: true });
      new ResizeObserver(() => this.later()).observe(frame);
      this.body.addEventListener("click", (event) => {
        const cell = event.target.closest("[data-column]");
        if (!cell) return;
        this.choose(Number(cell.parentElement.dataset.row), Number(cell.dataset.column));
        view.opened(this.place());
      });
    }

    get height() { return this.rowHeight || (this.rowHeight = parseFloat(getComputedStyle(this.frame).getPropertyValue("--row")) || 96); }

    // Show these rows (numbers of the table's) in these columns [{run, places}].
    show(table, rows, columns) {
      const before = this.columns.map(({ run }) => run).join();
      Object.assign(this, { table, rows, columns });
      this.frame.style.setProperty("--columns", String(columns.length));
      this.frame.setAttribute("aria-rowcount", String(rows.length + 1));
      this.frame.setAttribute("aria-colcount", String(columns.length + 1));
      this.body.style.height = `${rows.length * this.height}px`;
      if (before !== columns.map(({ run }) => run).join() || !this.head.firstChild) this.drawHead();
      this.active = [-1, Math.min(this.active[1], Math.max(0, columns.length - 1))];
      this.frame.scrollTop = 0;
      this.redraw();
    }

    drawHead() {
      const heads = [element("div", "grid-first", "Sample"), ...this.columns.map(({ run }) => {
        const each = this.store.runs[run];
        const cell = element("div", `dot-run-${each.colour}`);
        put(cell, each.label);
        return cell;
      })];
      heads.forEach((cell) => cell.setAttribute("role", "columnheader"));
      this.head.replaceChildren(...heads);
    }

    redraw() {
      this.body.replaceChildren();
      this.drawn.clear();
      this.draw();
    }

    later() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.draw(); });
    }

    draw() {
      const from = Math.max(0, Math.floor(this.frame.scrollTop / this.height) - OVER);
      const to = Math.min(this.rows.length, Math.ceil((this.frame.scrollTop + this.frame.clientHeight) / this.height) + OVER);
      for (const [row, line] of this.drawn) if (row < from || row >= to) { line.remove(); this.drawn.delete(row); }
      for (let row = from; row < to; row++) {
        if (this.drawn.has(row)) continue;
        const line = this.line(row);
        this.drawn.set(row, line);
        this.body.append(line);
      }
      this.mark();
    }

    line(row) {
      const line = element("div", "grid-row");
      line.setAttribute("role", "row");
      line.setAttribute("aria-rowindex", String(row + 2));
      line.dataset.row = row;
      line.style.transform = `translateY(${row * this.height}px)`;
      const first = element("div", "grid-first");
      first.setAttribute("role", "rowheader");
      line.append(first);
      let named = false;
      this.columns.forEach(({ places }, column) => {
        const at = places[this.rows[row]];
        const cell = element("div", "cell");
        cell.setAttribute("role", "gridcell");
        cell.id = `cell-${row}-${column}`;
        if (at < 0) { cell.append(element("span", "none", "not asked")); line.append(cell); return; }
        cell.dataset.column = column;
        this.fill(cell, at, first, !named);
        named = true;
        line.append(cell);
      });
      return line;
    }

    fill(cell, at, first, named) {
      const verdict = this.view.verdict(at), change = this.view.change(at);
      const top = element("div", "top");
      top.append(element("span", `ending ${verdict}`, verdict));
      if (change > 0) { cell.classList.add("up"); top.append(element("span", "moved", "\u25b2 better")); }
      if (change < 0) { cell.classList.add("down"); top.append(element("span", "moved", "\u25bc worse")); }
      if (!change && !this.view.same(at)) { cell.classList.add("differs"); top.append(element("span", "moved", "\u2260 other answer")); }
      const line = element("div", "line", "\u00a0");
      cell.append(top, line);
      this.store.sample(at).then((sample) => {
        line.textContent = "";
        put(line, (sample.output || sample.error || "").trim().slice(0, SHOWN) || "(empty answer)");
        if (!named) return;
        const name = put(element("div", "sample-name"), evalrun.nameOf(sample));
        if (sample.repeat) name.append(`, repeat ${sample.repeat}`);
        const text = put(element("div", "line"), evalrun.inputOf(sample).slice(0, SHOWN));
        first.append(name, text);
        if (sample.target !== undefined && sample.target !== null) first.append(put(element("div", "target"), `target: ${String(sample.target).slice(0, 80)}`));
      });
    }

    // The active cell.

    place() {
      const [row, column] = this.active;
      return row < 0 || !this.columns[column] ? -1 : this.columns[column].places[this.rows[row]];
    }

    choose(row, column) {
      this.active = [row, column];
      const top = row * this.height, head = this.head.offsetHeight;
      if (top < this.frame.scrollTop) this.frame.scrollTop = top;
      else if (top + this.height + head > this.frame.scrollTop + this.frame.clientHeight) this.frame.scrollTop = top + this.height + head - this.frame.clientHeight;
      this.draw();
    }

    // Choose the cell of a sample; false where it is not among those shown.
    find(at) {
      for (let column = 0; column < this.columns.length; column++) {
        const row = this.rows.findIndex((each) => this.columns[column].places[each] === at);
        if (row >= 0) { this.choose(row, column); return true; }
      }
      return false;
    }

    // To another row or column: false where there is nothing to go to.
    step(down, right) {
      if (!this.rows.length) return false;
      const [row, column] = this.active;
      const wide = this.columns.length;
      this.choose(Math.min(Math.max(0, row < 0 ? 0 : row + down), this.rows.length - 1), Math.min(Math.max(0, column + right), wide - 1));
      return true;
    }

    mark() {
      this.body.querySelectorAll("[aria-selected]").forEach((cell) => cell.removeAttribute("aria-selected"));
      const cell = document.getElementById(`cell-${this.active[0]}-${this.active[1]}`);
      if (!cell) { this.frame.removeAttribute("aria-activedescendant"); return; }
      cell.setAttribute("aria-selected", "true");
      this.frame.setAttribute("aria-activedescendant", cell.id);
    }
  }

  evalrun.Grid = Grid;
})();
