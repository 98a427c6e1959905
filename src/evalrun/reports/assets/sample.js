// One sample in full: the prompt as sent, the output, how it was read and scored, what was measured.
(() => {
  "use strict";
  const { element, put, textBlock, diffBlock } = evalrun;
  const number = (value) => value.toLocaleString("en");
  const fixed = (value, digits) => Number(value).toLocaleString("en", { maximumFractionDigits: digits });
  const time = (seconds) => (seconds < 1 ? `${fixed(seconds * 1000, 1)} ms` : `${fixed(seconds, 2)} s`);

  // The part of the page's address that names a sample.
  function address(sample) {
    return `#sample=${[sample.run.run, sample.sample_id, sample.repeat ?? 0].map(encodeURIComponent).join("/")}`;
  }

  // Everything about one sample. `verdict` is the word for how it ended; `query` is marked in the texts;
  // `against` {name, text} is what the output is compared with, word by word, if anything.
  evalrun.sampleSections = (store, sample, verdict, query, against = null) => {
    const parts = [head(store, sample, verdict), title("Prompt as sent"), ...prompt(sample, query)];
    if (sample.reasoning) parts.push(title("Reasoning"), textBlock(sample.reasoning, query));
    const beside = against && against.text !== null;
    if (beside) parts.push(title(`Output against ${against.name}`), diffBlock({ text: against.text, name: against.name, verdict: against.verdict }, { text: sample.output || sample.error || "", name: sample.run.label, verdict }));
    if (against && !beside) parts.push(nothing(`There is nothing to compare with: ${against.name} has no text here.`));
    if (!beside) parts.push(title("Output"), sample.output ? textBlock(sample.output, query, "output") : nothing("There is no output."));
    if (sample.tool_calls) parts.push(title("Tool calls"), textBlock(String(sample.tool_calls), query));
    if (sample.error) parts.push(title(store.ending(sample.at) === "failed" ? "Why it failed" : "Why it was not read"), textBlock(sample.error, query));
    const pair = element("div", "pair");
    for (const [name, value] of [["Parsed answer", sample.answer], ["Target", sample.target]]) {
      const side = element("div");
      side.append(title(name), value === undefined || value === null ? nothing("none") : textBlock(String(value), query));
      pair.append(side);
    }
    parts.push(pair, ...scores(sample), ...options(sample), ...tokens(sample), ...measures(sample), ...attempts(sample), ...others(sample));
    return parts;
  };

  // So many messages before the last one are folded away.
  const EXAMPLES = 2;

  const title = (text) => element("h4", "", text);
  const nothing = (text) => element("p", "none", text);

  function head(store, sample, verdict) {
    const box = element("div", "head");
    const heading = put(element("h3"), evalrun.nameOf(sample));
    if (sample.repeat) heading.append(`, repeat ${sample.repeat}`);
    box.append(heading, element("span", `ending ${verdict}`, verdict));
    const flags = [sample.run.label];
    if (store.cached(sample.at)) flags.push("cached, so not timed");
    if (store.warmup(sample.at)) flags.push("warm-up, so left out of speed");
    for (const { column, sensitive } of store.groups) if (sensitive && sample[`sensitive.${column}`] !== undefined && sample[`sensitive.${column}`] !== null) flags.push(`${column}: ${sample[`sensitive.${column}`]}`);
    if (sample.cluster !== undefined && sample.cluster !== null) flags.push(`cluster ${sample.cluster}`);
    box.append(put(element("span", "quiet"), flags.join(" \u00b7 ")));
    if (evalrun.nameOf(sample) !== sample.sample_id) box.append(put(element("code", "quiet"), sample.sample_id));
    const link = element("a", "quiet", "link to this sample");
    link.href = address(sample);
    box.append(link);
    return box;
  }

  function prompt(sample, query) {
    const messages = sample.messages || (sample.prompt ? [["text", sample.prompt]] : []);
    if (!messages.length) return [nothing("No prompt was sent.")];
    const bubbles = messages.map(([role, content]) => {
      const bubble = element("div", "bubble");
      bubble.append(put(element("div", "role"), role), textBlock(typeof content === "string" ? content : JSON.stringify(content, null, 1), query));
      return bubble;
    });
    // Examples that every sample is asked with would push the question and the output out of sight.
    const from = messages[0][0] === "system" ? 1 : 0;
    const examples = messages.length - 1 - from;
    if (examples < EXAMPLES) return bubbles;
    const fold = element("details", "examples");
    fold.append(element("summary", "", `${examples} messages before the question`), ...bubbles.slice(from, -1));
    // What is searched for must not lie hidden.
    fold.open = Boolean(query) && messages.slice(from, -1).some(([, content]) => String(content).toLowerCase().includes(query.toLowerCase()));
    return [...bubbles.slice(0, from), fold, bubbles[bubbles.length - 1]];
  }

  function rows(names, lines, caption) {
    const table = element("table");
    table.createCaption().append(element("span", "unseen", caption));
    if (names) {
      const top = table.createTHead().insertRow();
      for (const name of names) { const cell = element("th", "", name); cell.scope = "col"; top.append(cell); }
    }
    const body = table.createTBody();
    for (const [name, ...values] of lines) {
      const line = body.insertRow();
      const first = put(element("th"), name);
      first.scope = "row";
      line.append(first, ...values.map((value) => put(element("td"), value)));
    }
    const box = element("div", "scroll");
    box.append(table);
    return box;
  }

  function scores(sample) {
    const lines = Object.keys(sample).filter((name) => name.startsWith("score.") || name.startsWith("reason.")).map((name) => name.slice(name.indexOf(".") + 1));
    const names = [...new Set(lines)];
    if (!names.length) return [];
    return [title("Scores"), rows(["scorer", "score", "reason"], names.map((name) => {
      const value = sample[`score.${name}`];
      return [name, value === undefined || value === null ? "none" : fixed(value, 4), sample[`reason.${name}`] ?? ""];
    }), "Scores of this sample")];
  }

  const percent = (logprob) => `${fixed(100 * Math.exp(logprob), 1)} %`;

  // The likelihood that a model gave each of the options it was to choose from.
  function options(sample) {
    const known = sample.likelihood && sample.likelihood.options;
    if (!Array.isArray(known)) return [];
    const name = (each, at) => {
      const text = each && typeof each.option === "string" ? each.option.trim() || JSON.stringify(each.option) : String(at + 1);
      return each && each.answer === sample.likelihood.chosen && each.answer !== undefined ? `${text} (chosen)` : text;
    };
    return [title("Likelihood of the options"), rows(["option", "log-probability", "tokens"], known.map((each, at) => [
      name(each, at), each && each.logprob !== null ? fixed(each.logprob, 3) : "none", each ? String(each.tokens ?? "") : ""]), "Likelihood of each option")];
  }

  // The output token by token: the fainter the line below, the surer the model was; a click tells the figures.
  function tokens(sample) {
    if (!Array.isArray(sample.logprobs) || !sample.logprobs.length) return [];
    const block = element("div", "text tokens");
    const said = element("p", "quiet", "Choose a token to see how likely it was, and what else was likely.");
    said.setAttribute("role", "status");
    for (const [text, logprob, others] of sample.logprobs) {
      const button = put(element("button", logprob === null ? "" : `sure-${Math.min(4, Math.floor(5 * Math.exp(logprob)))}`), text);
      button.type = "button";
      button.title = logprob === null ? "no probability" : percent(logprob);
      button.addEventListener("click", () => {
        said.replaceChildren();
        put(said, `\u201c${text}\u201d ${logprob === null ? "without a probability" : percent(logprob)}`);
        if (others && others.length) put(said, `; also likely: ${others.map(([word, value]) => `\u201c${word}\u201d ${percent(value)}`).join(", ")}`);
      });
      block.append(button);
    }
    const known = sample.logprobs.filter(([, value]) => value !== null);
    const mean = known.length ? known.reduce((sum, [, value]) => sum + value, 0) / known.length : null;
    const frame = element("div");
    frame.append(block, said);
    return [title(mean === null ? "Tokens" : `Tokens, ${percent(mean)} likely each on (geometric) average`), frame];
  }

  function measures(sample) {
    const lines = [
      ["time to first token", sample.ttft_s, time], ["end to end", sample.e2e_s, time],
      ["per output token", sample.tpot_s, time], ["waited in evalrun", sample.client_queue_s, time],
      ["prompt tokens", sample.prompt_tokens, number], ["output tokens", sample.completion_tokens, number],
      ["finish reason", sample.finish_reason, String], ["attempts", sample.attempts, number],
      ["cost", sample.cost_usd, (value) => `$${fixed(value, 6)}`], ["model said", sample.model, String],
      ["fingerprint", sample.fingerprint, String],
    ].filter(([, value]) => value !== undefined && value !== null).map(([name, value, write]) => [name, write(value)]);
    return lines.length ? [title("Measurements"), rows(null, lines, "Measurements of this sample")] : [];
  }

  function attempts(sample) {
    let log = null;
    try { log = JSON.parse(sample.attempt_log || "null"); } catch { log = null; }
    if (!Array.isArray(log) || !log.length) return [];
    return [title("Attempts"), rows(["began after", "took", "ended", "then waited"], log.map((each) => [
      time(each.start_s || 0), time(each.duration_s || 0),
      [each.error || "answered", each.message].filter(Boolean).join(": "), time(each.wait_s || 0)]), "Attempts to get an answer")];
  }

  function others(sample) {
    const names = Object.keys(sample).filter((name) => name.startsWith("vars.") && sample[name] !== null);
    if (!names.length) return [];
    return [title("Other columns of the row"), rows(null, names.map((name) => [name.slice(5), String(sample[name]).slice(0, 4000)]), "Other columns of the row")];
  }

  Object.assign(evalrun, { fixed, address });
})();
