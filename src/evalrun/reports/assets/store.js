// The samples that lie in this file: an index of a few bytes each, and compressed chunks unpacked on demand.
(() => {
  "use strict";
  const KEPT_CHUNKS = 64;
  const ENDINGS = ["scored", "unparsed", "refused", "failed"];
  const CACHED = 4, WARMUP = 8, RETRIED = 16;

  function bytesOf(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    return bytes;
  }

  async function unpack(script) {
    const stream = new Blob([bytesOf(script.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n >>> 0;
  });
  function crc32(text) {
    let sum = 0xffffffff;
    for (const byte of new TextEncoder().encode(text)) sum = CRC[(sum ^ byte) & 0xff] ^ (sum >>> 8);
    return (sum ^ 0xffffffff) >>> 0;
  }

  class Store {
    static async open() {
      const header = JSON.parse(document.getElementById("samples-index").textContent);
      return new Store(header, await unpack(document.getElementById("samples-columns")));
    }

    constructor(header, columns) {
      const n = header.n;
      Object.assign(this, { n, runs: header.runs, cut: header.cut, of: header.of, columns: header.columns });
      let from = 0;
      const take = (Kind) => {
        const taken = new Kind(columns, from, n);
        from += n * Kind.BYTES_PER_ELEMENT;
        return taken;
      };
      this.scorers = header.scores.map(({ name, lower }) => ({ name, lower, values: take(Float32Array) }));
      this.times = take(Float32Array);
      this.keys = take(Uint32Array);
      this.mirrors = take(Uint32Array);
      this.answers = take(Uint32Array);
      this.groups = header.groups.map(({ column, also, labels, sensitive }) => ({ column, also, labels, sensitive, codes: take(Uint16Array) }));
      this.flags = take(Uint8Array);
      this.use(0);
      this.run = new Uint16Array(n);
      this.chunkStart = [];
      this.runs.forEach((run, at) => {
        let start = run.start;
        for (const size of run.chunks) { this.chunkStart.push(start); start += size; }
        run.end = start;
        this.run.fill(at, run.start, start);
      });
      this.scripts = document.querySelectorAll("script[data-chunk]");
      this.texts = new Map();
      this.parsed = new Map();
    }

    // Go by another score: right and wrong are words for scores that are 1 or 0; others are shown as numbers.
    use(which) {
      const { name, lower, values } = this.scorers[which] || { name: "", lower: false, values: new Float32Array(this.n).fill(NaN) };
      Object.assign(this, { score: name, lower, scores: values });
      this.binary = !lower && values.every((score) => score === 0 || score === 1 || Number.isNaN(score));
      this.judged = !lower && (this.binary || values.every((score) => !(score < 0 || score > 1)));
    }

    ending(at) { return ENDINGS[this.flags[at] & 3]; }
    cached(at) { return (this.flags[at] & CACHED) !== 0; }
    warmup(at) { return (this.flags[at] & WARMUP) !== 0; }
    retried(at) { return (this.flags[at] & RETRIED) !== 0; }

    chunkOf(at) {
      let low = 0, high = this.chunkStart.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.chunkStart[middle] <= at) low = middle; else high = middle - 1;
      }
      return low;
    }

    // The chunk's JSON text, for searches: not kept.
    async text(chunk) { return new TextDecoder().decode(await unpack(this.scripts[chunk])); }

    async chunk(number) {
      let found = this.parsed.get(number);
      if (found) this.parsed.delete(number);
      else found = this.text(number).then(JSON.parse);
      this.parsed.set(number, found);
      if (this.parsed.size > KEPT_CHUNKS) this.parsed.delete(this.parsed.keys().next().value);
      return found;
    }

    async sample(at) {
      const number = this.chunkOf(at);
      return this.made(await this.chunk(number), at - this.chunkStart[number], at);
    }

    // One row of a chunk as an object: empty columns are missing, shared texts are put back.
    made(chunk, row, at) {
      const sample = Object.assign(Object.create(null), chunk.const);
      chunk.fields.forEach((name, field) => { sample[name] = chunk.rows[row][field]; });
      const full = (text) => (typeof text === "number" ? chunk.texts[text] : text);
      if (sample.messages) sample.messages = sample.messages.map(([role, content]) => [role, full(content)]);
      if (sample.prompt !== undefined) sample.prompt = full(sample.prompt);
      if (sample.answer === 0) sample.answer = (sample.output || "").trim();
      return Object.assign(sample, { at, run: this.runs[this.run[at]] });
    }

    // What a row of the grid goes by: 53 bits of two digests of its id and repeat.
    key(at) { return this.keys[at] * 2097152 + (this.mirrors[at] >>> 11); }

    // The samples of several runs as a table: by run, the place of each row's sample, -1 where it has none.
    table(runs) {
      const keys = [], columns = runs.map(() => []);
      let rows = null;
      runs.forEach((run, column) => {
        const { start, end } = this.runs[run], places = columns[column];
        let same = column === 0 || end - start === keys.length;
        for (let at = start; same && column && at < end; at++) same = keys[at - start] === this.key(at);
        if (same) {
          for (let at = start; at < end; at++) { places.push(at); if (!column) keys.push(this.key(at)); }
          return;
        }
        if (!rows) rows = new Map(keys.map((key, row) => [key, row]));
        for (let at = start; at < end; at++) {
          const key = this.key(at);
          let row = rows.get(key);
          if (row === undefined) { row = keys.length; keys.push(key); rows.set(key, row); }
          places[row] = at;
        }
      });
      return { size: keys.length, columns: columns.map((places) => Int32Array.from(keys, (_, row) => places[row] ?? -1)) };
    }

    // The place of a sample by run, sample id and repeat, or -1. Keys are short digests, so the id is checked.
    async find(run, id, repeat) {
      const place = this.runs.find((each) => each.run === run);
      if (!place) return -1;
      const key = crc32(`${id}/${repeat}`);
      for (let at = place.start; at < place.end; at++) {
        if (this.keys[at] !== key) continue;
        const sample = await this.sample(at);
        if (sample.sample_id === id) return at;
      }
      return -1;
    }
  }

  evalrun.Store = Store;
})();
