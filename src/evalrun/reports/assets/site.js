// The search over a table of sweeps: every word must stand in the row.
(() => {
  "use strict";
  const search = document.getElementById("search");
  if (!search) return;
  const rows = [...document.querySelectorAll("#sweeps tbody tr")];
  const texts = rows.map((row) => `${row.textContent} ${row.dataset.words}`.toLowerCase());
  const said = document.getElementById("found");

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    rows.forEach((row, at) => {
      row.hidden = !words.every((word) => texts[at].includes(word));
      found += !row.hidden;
    });
    said.textContent = words.length ? `${found} of ${rows.length}` : "";
    history.replaceState(null, "", search.value ? `#q=${encodeURIComponent(search.value)}` : location.pathname);
  }

  search.addEventListener("input", show);
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target === search) return;
    event.preventDefault();
    search.focus();
  });
  if (location.hash.startsWith("#q=")) {
    try { search.value = decodeURIComponent(location.hash.slice(3)); } catch { /* a link cut short */ }
    show();
  }
})();
