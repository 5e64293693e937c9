// Find the fault: what a run left behind, and eleven things that it could be. Python has written the
// answer to each choice beforehand; here they are shown, and the first answer to each case is kept.

const PANEL = { height: 150, top: 8, right: 8, bottom: 24, left: 46 };
const KEY = "peft-book-faults"; // "your work" takes it along
const KINDS = { gradient: "Gradient norm, before clipping", step: "Change in a step, root mean square",
  weight: "Norm of what is trained" };

const brief = (value) => String(Number(value.toPrecision(3)));
/** Two digits, for cells of a table: 0.0000302 -> "3.0e-5". */
const short = (value) => (value && value < 0.01 ? value.toExponential(1)
  : String(Number(value.toPrecision(2))));

/** A small chart: lines over the steps of the run, from zero or from near the lowest loss. */
function panel(title, unit) {
  const svg = h("svg", { role: "img", height: PANEL.height, class: "pw-curve" });
  const keys = h("ul", { class: "pw-legend", "aria-hidden": "true" });
  const node = h("figure", { class: "pw-panel" }, h("figcaption", {}, title), svg, keys);
  let last = null;

  const draw = () => {
    if (!last) return;
    const width = Math.max(220, node.clientWidth || 320);
    svg.setAttribute("viewBox", `0 0 ${width} ${PANEL.height}`);
    const [right, bottom] = [width - PANEL.right, PANEL.height - PANEL.bottom];
    const all = last.lines.flatMap(({ values }) => values);
    const low = unit === "nats" ? Math.min(...all) : 0;
    const high = Math.max(...all) > low ? Math.max(...all) : low + 1;
    const x = (step) => PANEL.left + (step / last.steps) * (right - PANEL.left);
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - PANEL.top);
    const text = (string, at, kind) => h("text", { ...at, class: `pw-text pw-${kind}` }, string);
    svg.replaceChildren(
      ...ticks(low, high).flatMap((value) => [
        h("line", { x1: PANEL.left, x2: right, y1: y(value), y2: y(value), class: "pw-grid" }),
        text(brief(value), { x: PANEL.left - 6, y: y(value) + 4 }, "end")]),
      ...ticks(0, last.steps).map((step) =>
        text(formatCount(step), { x: x(step), y: bottom + 16 }, "middle")),
      ...last.lines.map(({ values, every, kind }) => h("path", { class: `pw-line pw-${kind}`,
        d: values.map((value, i) => `${i ? "L" : "M"}${x(i * every)},${y(value)}`).join("") })));
  };
  new ResizeObserver(draw).observe(node);
  /** Lines as { name, values, every (steps from point to point), kind }. */
  node.show = (lines, steps) => {
    last = { lines, steps };
    keys.replaceChildren(...lines.filter(({ name }) => name).map(({ name, kind }) => h("li", {},
      h("svg", { viewBox: "0 0 26 10", width: 26, height: 10 },
        h("path", { d: "M0,5L26,5", class: `pw-line pw-${kind}` })), name)));
    svg.setAttribute("aria-label", `${title}. ${lines.filter(({ name }) => name).map(
      ({ name, values }) => `${name}: first ${brief(values[0])}, largest ${
        brief(Math.max(...values))}, last ${brief(values[values.length - 1])}`).join(". ")}.`);
    draw();
  };
  return node;
}

/** First answers by the name of a case, as this browser keeps them. */
function answers() {
  let unkept = {};
  const read = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
      return { ...(typeof kept === "object" ? kept : {}), ...unkept };
    } catch {
      return unkept; // a browser that keeps nothing, or what is damaged
    }
  };
  return { read, add: (name, said) => {
    const all = read();
    if (Object.hasOwn(all, name)) return;
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...all, [name]: said }));
    } catch {
      unkept = { ...unkept, [name]: said }; // then it holds until the page is left
    }
  } };
}

/** The lines of each panel; those of the sound run beside it have no name of their own but one. */
function linesOf(run, every, beside) {
  const kinds = ["validation", "second"];
  const other = (values, step, name) => (values
    ? [{ name, values, every: step, kind: "beside" }] : []);
  const steps = run.train.length;
  return { steps, panels: [
    [{ name: "held out", values: run.held_out, every: every.look, kind: "validation" },
      { name: "training batch", values: run.train, every: 1, kind: "train" },
      { name: "pretrained model", values: [run.before, run.before], every: steps, kind: "before" },
      ...other(beside?.held_out, every.look, "sound run, held out")],
    ...Object.keys(KINDS).map((kind) => [
      ...Object.entries(run[kind]).map(([name, values], i) => (
        { name, values, every: every.norm, kind: kinds[i] })),
      ...Object.values(beside?.[kind] ?? {}).flatMap((values, i) =>
        other(values, every.norm, i ? "" : "sound run"))]),
    [{ name: "distance by norm", values: run.drift, every: every.look, kind: "validation" },
      ...other(beside?.drift, every.look, "sound run")],
  ] };
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const cases = JSON.parse(get("_cases"));
  const sound = JSON.parse(get("_sound"));
  const known = get("_faults");
  const order = get("_order"); // a dictionary's own may be lost on the way into a page
  const kept = answers();
  const run = () => cases[get("case")];
  const go = (index) => { model.set("case", index); model.save_changes(); };

  const headline = h("p", { class: "pw-headline", tabindex: -1 });
  const figure = h("b", {});
  const sentence = h("span", {});
  headline.append(figure, sentence);
  const spoken = announcer();
  const panels = [panel("Loss, nats per character", "nats"),
    ...Object.values(KINDS).map((title) => panel(title)),
    panel("Frozen weights: distance from their start")];
  const box = h("input", { type: "checkbox", id: `${prefix}-beside`, "data-name": "beside",
    onChange: () => draw() });
  const facts = h("dl", { class: "pw-facts" });
  const names = h("ul", { class: "pw-names" });
  const rows = h("tbody", {});
  const table = h("details", { class: "pw-details" }, h("summary", {}, "The curves as a table"),
    h("div", { class: "pw-scroll" }, h("table", { class: "pw-table pw-numbers" },
      h("caption", {}, "Every four steps; where two groups are trained, one after the other"),
      h("thead", {}, h("tr", {}, ["Step", "Held out", "Batch", "Gradient", "Change",
        "Trained", "Frozen"].map((text) => h("th", { scope: "col" }, text)))), rows)));

  const radios = order.map((key, i) => h("input", { type: "radio", name: `${prefix}-fault`,
    id: `${prefix}-${i}`, value: key, "data-name": "fault", onChange: () => { say.disabled = false; } }));
  const say = h("button", { type: "button", class: "pw-button", "data-name": "say",
    onClick: () => judge(radios.find((radio) => radio.checked).value) }, "This is it");
  const another = h("button", { type: "button", class: "pw-button", "data-name": "another",
    onClick: () => { go(nextOne()); headline.focus(); } }, "Another case"); // far above, on a phone
  another.hidden = cases.length < 2;
  const reply = h("div", { class: "pw-reply", role: "status" });
  const suspects = h("fieldset", { class: "pw-suspects" }, h("legend", {}, "Which fault is it?"),
    h("div", {}, radios.map((radio, i) => h("div", { class: "pw-box" }, radio,
      h("label", { for: radio.id }, known[order[i]].title)))));

  /** The next case without an answer; after the last, simply the next. */
  function nextOne() {
    const said = kept.read();
    const after = cases.map((_, i) => (get("case") + 1 + i) % cases.length);
    return after.find((i) => !Object.hasOwn(said, cases[i].name)) ?? after[0];
  }

  function score() {
    const said = kept.read();
    const done = cases.filter(({ name }) => Object.hasOwn(said, name));
    const right = done.filter(({ name, answer }) => said[name] === answer).length;
    return done.length ? `${right} of ${done.length} right at the first try.` : "";
  }

  function judge(key) {
    const { answer, replies, name } = run();
    kept.add(name, key);
    const { fix, anchor, title } = known[key];
    const told = [h("p", {}, h("b", {}, key === answer ? "Right. " : "Not this one. "),
      replies[order.indexOf(key)])];
    if (key === answer && anchor) {
      const built = /\.html$/.test(location.pathname); // in JupyterLab there is no such page
      told.push(h("p", {}, h("b", {}, "The fix: "), `${fix} `, built
        ? h("a", { href: `common-mistakes.html#${anchor}` }, `${title}, in common mistakes`) : null));
    }
    reply.replaceChildren(...told);
    tell();
  }

  function tell() {
    setText(figure, cases.length > 1 ? `Case ${get("case") + 1} of ${cases.length}` : "A new case");
    setText(sentence, `${run().setting}, to be taught Turkish names. ${score()}`);
  }

  function draw() {
    const now = run();
    colour(root, get("_colors")[now.method]);
    tell();
    const { steps, panels: lines } = linesOf(now, get("_every"), box.checked && sound[now.method]);
    panels.forEach((one, i) => one.show(lines[i], steps));
    facts.replaceChildren(...now.facts.map(([term, value]) =>
      h("div", {}, h("dt", {}, term), h("dd", {}, value))));
    names.replaceChildren(...now.names.map((name) => h("li", {}, name || "(empty)")));
    const { look, norm } = get("_every");
    rows.replaceChildren(...now.held_out.map((loss, i) => {
      const group = (kind) => Object.values(now[kind])
        .map((values) => values[(i * look) / norm]).filter((value) => value !== undefined)
        .map(short).join(", ") || "\u2013";
      return h("tr", {}, h("th", { scope: "row" }, String(i * look)), [brief(loss),
        now.train[i * look] === undefined ? "\u2013" : brief(now.train[i * look]),
        group("gradient"), group("step"), group("weight"), brief(now.drift[i])]
        .map((text) => h("td", {}, text)));
    }));
    return `${figure.textContent}: ${now.setting}. Held-out loss from ${brief(now.held_out[0])} to `
      + `${brief(now.held_out[now.held_out.length - 1])}.`;
  }

  const root = widgetRoot("Find the fault", headline, spoken,
    h("div", { class: "pw-panels" }, panels, h("div", {}, h("p", { class: "pw-names-title" },
      "Made up by the model at the end"), names)),
    h("div", { class: "pw-box" }, box,
      h("label", { for: box.id }, "Lay a sound run of this method beside it")),
    facts, table, suspects, h("div", { class: "pw-row" }, say, another), reply);
  const fresh = () => {
    radios.forEach((radio) => { radio.checked = false; });
    say.disabled = true;
    reply.replaceChildren();
    spoken.say(draw());
  };
  if (Object.hasOwn(kept.read(), run().name) && cases.length > 1) model.set("case", nextOne());
  el.append(root);
  fresh();
  const redraw = oncePerFrame(fresh);
  model.on("change:case", redraw);
  return () => model.off("change:case", redraw);
}

export default { render };
