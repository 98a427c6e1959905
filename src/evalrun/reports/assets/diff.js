// Differences between two texts, word by word: what was taken out is struck through, what was put in is underlined.
(() => {
  "use strict";
  const { element, put } = evalrun;
  const MOST = 4000;        // words of a text that are compared
  const EFFORT = 1500;      // words that may differ before the rest is called different

  const words = (text) => text.match(/[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu) || [];

  // The shortest edit script (Myers 1986): pieces [kind, text] with kind -1 only in a, 0 in both, 1 only in b.
  function edits(a, b) {
    const most = Math.min(a.length + b.length, EFFORT), trace = [];
    const ends = new Int32Array(2 * most + 3);
    for (let d = 0; d <= most; d++) {
      trace.push(ends.slice(most - d, most + d + 3));
      for (let k = -d; k <= d; k += 2) {
        const down = k === -d || (k !== d && ends[most + k] < ends[most + k + 2]);
        let x = down ? ends[most + k + 2] : ends[most + k] + 1;
        while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
        ends[most + k + 1] = x;
        if (x >= a.length && x - k >= b.length) return walked(a, b, trace);
      }
    }
    return [[-1, a.join("")], [1, b.join("")]];
  }

  function walked(a, b, trace) {
    const found = [];
    let x = a.length, y = b.length;
    for (let d = trace.length - 1; d >= 0; d--) {
      const ends = trace[d], at = (k) => ends[k + d + 1], k = x - y;
      const down = k === -d || (k !== d && at(k - 1) < at(k + 1));
      const before = d === 0 ? 0 : down ? k + 1 : k - 1;
      const fromX = d === 0 ? 0 : at(before), fromY = d === 0 ? 0 : fromX - before;
      while (x > fromX && y > fromY) { found.push([0, a[--x]]); y--; }
      if (d > 0) { if (down) found.push([1, b[--y]]); else found.push([-1, a[--x]]); }
    }
    return found.reverse();
  }

  // Neighbouring changes as one each way: white space between two changes counts as changed.
  function merged(pieces) {
    const result = [];
    let out = "", into = "", gap = "";
    const flush = () => {
      if (out) result.push([-1, out]);
      if (into) result.push([1, into]);
      if (gap) result.push([0, gap]);
      out = into = gap = "";
    };
    for (const [kind, text] of pieces) {
      if (kind === 0 && (out || into) && !text.trim()) { gap += text; continue; }
      if (kind === 0) { flush(); result.push([0, text]); continue; }
      if (gap) { out += gap; into += gap; gap = ""; }
      if (kind < 0) out += text; else into += text;
    }
    flush();
    const joined = [];
    for (const [kind, text] of result) {
      const last = joined[joined.length - 1];
      if (last && last[0] === kind) last[1] += text; else joined.push([kind, text]);
    }
    return joined;
  }

  // Pieces of two texts. What they share at both ends is set aside first, so that long texts cost little.
  evalrun.wordDiff = (one, other) => {
    const a = words(one).slice(0, MOST), b = words(other).slice(0, MOST);
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const middle = edits(a.slice(start, a.length - end), b.slice(start, b.length - end));
    return merged([[0, a.slice(0, start).join("")], ...middle, [0, a.slice(a.length - end).join("")]]).filter(([, text]) => text);
  };

  // Both texts side by side, white space kept: what only the left one has is struck through, what only the right one has is underlined. Each side is {text, name, verdict}.
  evalrun.diffBlock = (one, other) => {
    const counts = [0, 0];
    const sides = [one, other].map(({ name, verdict }) => {
      const side = element("div", "side"), head = put(element("p", "side-name"), name);
      if (verdict) head.append(" ", element("span", `ending ${verdict}`, verdict));
      const block = element("div", "text output diff");
      block.dir = "auto";
      side.append(head, block);
      return { side, block };
    });
    for (const [kind, text] of evalrun.wordDiff(one.text, other.text)) {
      const count = words(text).filter((word) => word.trim()).length;
      if (kind < 0) counts[0] += count; else if (kind > 0) counts[1] += count;
      if (kind <= 0) sides[0].block.append(kind ? put(element("del"), text) : put(element("span"), text));
      if (kind >= 0) sides[1].block.append(kind ? put(element("ins"), text) : put(element("span"), text));
    }
    const [out, into] = counts;
    const said = out || into ? `${out} word${out === 1 ? "" : "s"} only in ${one.name} (struck through), ${into} only in ${other.name} (underlined)` : one.text === other.text ? `${one.name} and ${other.name} are the same text` : `${one.name} and ${other.name} differ in white space only`;
    const pair = element("div", "sides");
    pair.append(...sides.map(({ side }) => side));
    const frame = element("div");
    frame.append(put(element("p", "quiet"), said), pair);
    return frame;
  };
})();
