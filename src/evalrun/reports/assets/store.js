// The samples that lie in this file: an index of a few bytes each, and compressed chunks unpacked on demand.
(() => {
  "use strict";
  const KEPT_CHUNKS = 24;
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
      Object.assign(this, { n, runs: header.runs, score: header.score, lower: header.lower, cut: header.cut });
      this.scores = new Float32Array(columns, 0, n);
      this.times = new Float32Array(columns, 4 * n, n);
      this.keys = new Uint32Array(columns, 8 * n, n);
      this.groups = header.groups.map(({ column, labels }, at) => (
        { column, labels, codes: new Uint16Array(columns, 12 * n + 2 * n * at, n) }));
      this.flags = new Uint8Array(columns, 12 * n + 2 * n * header.groups.length, n);
      // Right and wrong are words for scores that are 1 or 0; other scores are shown as numbers.
      this.binary = !header.lower && this.scores.every((score) => score === 0 || score === 1 || Number.isNaN(score));
      this.judged = !header.lower && (this.binary || this.scores.every((score) => !(score < 0 || score > 1)));
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

    // The samples of another run that answer the same row, by place: -1 where there is none. Keys are digests.
    partners(run, other) {
      const from = this.runs[run], to = this.runs[other];
      const found = new Int32Array(this.n).fill(-1);
      const places = new Map();
      for (let at = to.start; at < to.end; at++) places.set(this.keys[at], at);
      for (let at = from.start; at < from.end; at++) found[at] = places.get(this.keys[at]) ?? -1;
      return found;
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
