// What the page does besides showing: colours, the place in the navigation, folded parts, paper.
const evalrun = {};
(() => {
  "use strict";
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const NAMES = ["auto", "light", "dark"];

  function remembered() {
    try { return localStorage.getItem("evalrun-theme") || "auto"; } catch { return "auto"; }
  }

  function setTheme(theme) {
    const name = NAMES.includes(theme) ? theme : "auto";
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    button.querySelector("b").textContent = name;
    button.title = name === "auto" ? "Colours as the system has them" : `Colours: ${name}`;
    try { localStorage.setItem("evalrun-theme", name); } catch { /* a page from disk may have no storage */ }
  }

  button.addEventListener("click", () => {
    setTheme(NAMES[(NAMES.indexOf(root.dataset.theme || "auto") + 1) % NAMES.length]);
  });
  setTheme(remembered());

  // The section that is being read is marked in the navigation.
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const sections = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  function markSection() {
    const line = innerHeight * 0.3;
    let here = sections[0];
    if (scrollY > 0) for (const section of sections) if (section.getBoundingClientRect().top <= line) here = section;
    for (const [id, link] of links) {
      if (here && id === here.id) {
        if (link.hasAttribute("aria-current")) continue;
        link.setAttribute("aria-current", "true");
        // In a narrow window the bar is wider than the screen: where one is stays in sight.
        const bar = link.closest("ul");
        if (bar.scrollWidth > bar.clientWidth) bar.scrollLeft = link.offsetLeft - bar.offsetLeft - bar.clientWidth / 2 + link.offsetWidth / 2;
      }
      else link.removeAttribute("aria-current");
    }
  }
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; markSection(); });
  }, { passive: true });
  markSection();

  // On a phone the sections are folded below their headings, so that the page is short; wider windows have them open.
  const narrow = matchMedia("(max-width: 37.5rem)");
  const folding = [...document.querySelectorAll("main > section[id]")].filter((each) => each.firstElementChild.tagName === "H2");
  function setFolded(section, folded) {
    section.classList.toggle("folded", folded);
    section.querySelector("h2 > button").setAttribute("aria-expanded", String(!folded));
    if (!folded) section.dispatchEvent(new Event("unfolded"));
  }
  function foldAll() {
    for (const section of folding) {
      const head = section.firstElementChild;
      if (narrow.matches && !head.querySelector("button")) {
        const fold = document.createElement("button");
        fold.type = "button";
        fold.append(...head.childNodes);
        fold.addEventListener("click", () => setFolded(section, !section.classList.contains("folded")));
        head.append(fold);
        setFolded(section, true);
      } else if (!narrow.matches && head.querySelector("button")) {
        setFolded(section, false);
        head.replaceChildren(...head.querySelector("button").childNodes);
      }
    }
  }
  foldAll();
  narrow.addEventListener("change", foldAll);

  // A link into something folded unfolds it.
  function unfold() {
    let target = null;
    const name = /^#(grid|sample=)/.test(location.hash) ? "samples" : location.hash.slice(1);
    try { target = document.getElementById(decodeURIComponent(name)) || document.getElementById(name); }
    catch { return; }
    if (!target) return;
    const section = target.closest("section.folded"), fold = target.closest("details");
    if (section) setFolded(section, false);
    if (fold && !fold.open) fold.open = true;
    if (section || fold) target.scrollIntoView();
  }
  addEventListener("hashchange", unfold);
  document.addEventListener("click", (event) => {
    // The same link once more changes no address.
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) unfold();
  });
  unfold();

  // Paper cannot be unfolded: all that is folded is printed, but for the data of charts, which are drawn, and menus.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const section of folding) if (section.classList.contains("folded")) setFolded(section, false);
    for (const fold of document.querySelectorAll("main details:not(.js):not(.menu):not(.chart-data):not([open])")) {
      if (fold.closest(".js")) continue;
      fold.open = true;
      opened.push(fold);
    }
  });
  addEventListener("afterprint", () => { while (opened.length) opened.pop().open = false; });

  evalrun.element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
})();
