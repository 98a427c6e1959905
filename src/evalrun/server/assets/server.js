"use strict";
(function () {
  const $ = (selector, within) => (within || document).querySelector(selector);

  // A one-time link: its secret stands behind the #, which no server log ever sees.
  const redeem = $("#redeem");
  if (redeem && location.hash.length > 20) {
    redeem.link.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
    redeem.submit();
  } else if (redeem) {
    redeem.addEventListener("submit", () => {
      redeem.link.value = redeem.link.value.replace(/^.*#/, "").trim();
    });
  }

  // A sweep that is running.
  const live = $("#live");
  if (live) follow(live);

  function follow(section) {
    const told = $(".told", section), body = $("tbody", section);
    const number = (value) => value.toLocaleString("en");
    const short = (value) => (value === null ? "" : Number(value.toPrecision(4)).toString());
    function show(state) {
      const parts = [number(state.done) + (state.of === null ? "" : " of " + number(state.of)) + " samples"];
      if (state.rate) parts.push(short(state.rate) + " samples/s");
      if (state.left_s !== null) parts.push(time(state.left_s) + " left");
      if (state.last_sample_s !== null) parts.push("the last sample " + time(state.last_sample_s) + " ago");
      told.textContent = (state.status === "running" ? "" : state.status + ": ") + parts.join(" · ");
      body.replaceChildren(...state.runs.filter((run) => run.done).slice(0, 200).map((run) => {
        const row = document.createElement("tr");
        const score = run.score && run.score.value !== null
          ? run.score.name + " " + short(run.score.value)
            + (run.score.ci_low === null ? "" : " [" + short(run.score.ci_low) + ", " + short(run.score.ci_high) + "]")
          : "";
        const done = number(run.done) + (run.of === null ? "" : "/" + number(run.of));
        [run.run, done, run.scored, run.unparsed, run.refused, run.failed, score].forEach((text, at) => {
          const cell = document.createElement("td");
          cell.textContent = text;
          if (at) cell.className = "n";
          row.append(cell);
        });
        return row;
      }));
    }
    const time = (s) => (s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : (s / 3600).toFixed(1) + " h");
    if (!window.EventSource) {
      setInterval(async () => show(await (await fetch(section.dataset.progress)).json()), 5000);
      return;
    }
    const source = new EventSource(section.dataset.live);
    source.addEventListener("state", (event) => show(JSON.parse(event.data)));
    source.addEventListener("end", (event) => {
      show(JSON.parse(event.data));
      source.close();
      setTimeout(() => location.reload(), 1500);
    });
  }

  // Labelling: one item at a time, by keys.
  const desk = $("#desk");
  if (desk) label(desk);

  function label(desk) {
    const api = desk.dataset.api, schema = JSON.parse(desk.dataset.schema);
    const status = $("#status"), item = $("#item"), choices = $("#choices"), comment = $("#comment");
    let now = null, begun = 0, busy = false;
    const say = (text) => { status.textContent = text; };
    async function ask(path, body) {
      const answer = await fetch(api + path, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}),
      });
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.error || "it did not work");
      return found;
    }
    async function work(what) {
      if (busy) return;
      busy = true;
      try { await what(); } catch (error) { say("Not saved: " + error.message); } finally { busy = false; }
    }
    async function next(said) {
      const found = await ask("/next");
      now = found.item;
      begun = Date.now();
      comment.value = "";
      say((said || "") + found.done + " of yours are answered, " + found.left + " are left.");
      item.replaceChildren(...(now ? parts(now.shown) : [text("p", "Nothing is left for you here. Thank you.")]));
      choices.hidden = comment.parentElement.hidden = !now;
      choices.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", "false"));
      if (schema.kind === "text" && now) $("#free").value = "";
    }
    function text(kind, value) { const made = document.createElement(kind); made.textContent = value; return made; }
    function parts(shown) {
      return shown.map((part) => {
        if (part.pair) {
          const both = document.createElement("div");
          both.className = "pair";
          part.pair.forEach((value, at) => {
            const one = document.createElement("div");
            one.append(text("h3", at ? "B" : "A"), text("pre", value));
            both.append(one);
          });
          return both;
        }
        const made = document.createElement("div");
        made.append(text("h3", part.name), text("pre", part.text));
        return made;
      });
    }
    const answer = (value) => work(async () => {
      if (!now) return;
      say("Saving …");
      await ask("/items/" + encodeURIComponent(now.id) + "/answer",
        { value: value, comment: comment.value, ms: Date.now() - begun });
      await next("Saved. ");
    });
    const skip = () => work(async () => {
      if (!now) return;
      await ask("/items/" + encodeURIComponent(now.id) + "/skip");
      await next("Left to others. ");
    });
    const undo = () => work(async () => {
      await ask("/undo");
      await next("Your last answer was taken back. ");
    });
    schema.choices.forEach((choice, at) => {
      const button = text("button", choice + " ");
      button.type = "button";
      if (at < 9) button.append(text("kbd", String(at + 1)));
      button.addEventListener("click", () => answer(schema.kind === "scale" ? Number(choice) : choice));
      choices.append(button);
    });
    if (schema.kind === "text") {
      const free = document.createElement("textarea");
      free.id = "free"; free.rows = 3; free.setAttribute("aria-label", schema.question);
      const button = text("button", "Save");
      button.type = "button";
      button.addEventListener("click", () => free.value.trim() && answer(free.value));
      choices.append(free, button);
    }
    $("#skip").addEventListener("click", skip);
    $("#undo").addEventListener("click", undo);
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
      if (typing) { if (event.key === "Escape") event.target.blur(); return; }
      const at = Number(event.key) - 1, buttons = choices.querySelectorAll("button");
      if (schema.kind !== "text" && at >= 0 && at < buttons.length) buttons[at].click();
      else if (event.key === "u") undo();
      else if (event.key === "s") skip();
      else if (event.key === "c") { comment.focus(); event.preventDefault(); }
      else if (event.key === "?") $("#keys").open = !$("#keys").open;
    });
    work(() => next(""));
  }
})();
