// Text from models and data, shown so that it can do nothing: never as HTML, marks made visible, long text folded.
(() => {
  "use strict";
  const { element } = evalrun;
  const ODD = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udc7f]/g;
  // Names rather than the Unicode pictures of controls, which few fonts have.
  const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB " +
    "ESC FS GS RS US").split(" ");
  const FOLD_CHARACTERS = 3000;
  const FOLD_LINES = 40;

  function symbol(text) {
    const code = text.codePointAt(0);
    if (code < 0x20) return CONTROLS[code];
    if (code === 0x7f) return "DEL";
    return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  }

  // Append text to an element; what cannot be seen stands as a symbol in a box. `query` is marked.
  function put(target, text, query) {
    const whole = String(text);
    let from = 0;
    for (const match of whole.matchAll(ODD)) {
      plain(target, whole.slice(from, match.index), query);
      const sign = element("span", "ctl", symbol(match[0]));
      sign.title = "a character that cannot be seen";
      target.append(sign);
      from = match.index + match[0].length;
    }
    plain(target, whole.slice(from), query);
    return target;
  }

  function plain(target, text, query) {
    if (!text) return;
    const low = query ? text.toLowerCase() : "";
    if (!query || low.length !== text.length) { target.append(text); return; }
    let from = 0;
    for (let at = low.indexOf(query); at >= 0; at = low.indexOf(query, from)) {
      target.append(text.slice(from, at), element("mark", "", text.slice(at, at + query.length)));
      from = at + query.length;
    }
    target.append(text.slice(from));
  }

  function foldAt(text) {
    let at = -1;
    for (let lines = 0; lines < FOLD_LINES; lines++) {
      at = text.indexOf("\n", at + 1);
      if (at < 0) break;
    }
    const end = Math.min(at < 0 ? Infinity : at, FOLD_CHARACTERS);
    // Folding a few words away helps nobody.
    return text.length > end * 1.25 + 200 ? end : -1;
  }

  // A block of text; long text shows its beginning and a button for the rest.
  evalrun.textBlock = (text, query, className) => {
    const block = element("div", `text ${className || ""}`);
    block.dir = "auto";
    const end = foldAt(text);
    if (end < 0) return put(block, text, query);
    put(block, text.slice(0, end), query);
    const more = element("button", "", `Show all ${text.length.toLocaleString("en")} characters`);
    more.type = "button";
    more.addEventListener("click", () => { block.replaceChildren(); put(block, text, query); });
    const frame = element("div");
    frame.append(block, more);
    more.addEventListener("click", () => more.remove());
    return frame;
  };
  evalrun.put = put;
})();
