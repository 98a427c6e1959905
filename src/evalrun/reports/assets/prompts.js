// Marks how each prompt differs from the best one, word by word.
(() => {
  "use strict";
  const { element, put } = evalrun;
  const TAGS = { "-1": "del", 0: "span", 1: "ins" };
  const texts = new Map([...document.querySelectorAll("#prompts pre")].map((pre) => [pre.id, pre.textContent]));
  for (const pre of document.querySelectorAll("#prompts pre[data-against]")) {
    const text = texts.get(pre.id), pieces = evalrun.wordDiff(texts.get(pre.dataset.against), text);
    const shared = pieces.reduce((sum, [kind, piece]) => sum + (kind ? 0 : piece.length), 0);
    if (shared < text.length / 2) continue; // another text altogether: marks would only hide it
    pre.replaceChildren(...pieces.map(([kind, text]) => put(element(TAGS[kind]), text)));
  }
})();
