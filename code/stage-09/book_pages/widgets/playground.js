// The playground: train the book's small Llama in this page, with the book's own code. Python runs in a
// worker (tools/in_page); each request trains a few steps, so that pause and a new rate take hold at
// once. What is trained, measured and made up comes from book_pages/playground.py.

import { Python } from "./python.js";

const SETUP = `import sys
sys.path.insert(0, "/home/pyodide/code/stage-09")
from book_pages import playground
from book_pages.playground import Run, loaded, say
runs = {}`;
const AT_ONCE = 5; // steps of one request
const EDGE = { top: 10, right: 34, bottom: 40, left: 40 };
const TALL = 280;
const LABELS = { target: "New names", method: "Method", alpha: "LoRA's alpha", rate: "Learning rate",
  names: "Names to train on", batch: "Names in a step", steps: "Steps", seed: "Seed" };
const nats = (loss) => loss.toFixed(3);
const path = (points, x, y) => points.map(([step, loss], i) =>
  `${i ? "L" : "M"}${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join("");

/** Python that answers with data. */
class Asked {
  constructor(tell) {
    this.python = new Python("book/");
    this.python.onLoading = (text) => tell(`${text} …`);
  }

  async do(source) {
    let answer = null, first = !this.python.ready;
    await this.python.start();
    if (first) await this.do(SETUP);
    const failure = await this.python.run(source, {
      add: ({ data }) => { answer = data?.["application/json"] ?? answer; } });
    if (failure) throw new Error(failure.message || failure.name);
    return answer;
  }
}

/** The losses of all runs over their steps; the last run strong, those kept beside it thin. */
function chart(known) {
  const svg = h("svg", { role: "img", height: TALL, class: "pw-curve" });
  const node = h("figure", { class: "pw-figure" }, svg);
  const draw = () => {
    const { runs } = node, width = Math.max(240, node.clientWidth || 600);
    const right = width - EDGE.right, bottom = TALL - EDGE.bottom;
    const losses = runs.flatMap(({ looks, train }) =>
      [...looks.flatMap(({ target, base }) => [target, base]), ...train.map(([, loss]) => loss)]);
    const low = Math.min(1.6, ...losses), high = Math.max(3.2, Math.min(5, ...[Math.max(0, ...losses)]));
    const last = Math.max(50, ...runs.map(({ settings }) => settings.steps));
    const recorded = (runs.length ? known.curves[runs.at(-1).settings.target] : []).filter(([step]) => step <= last);
    const x = (step) => EDGE.left + (step / last) * (right - EDGE.left);
    const y = (loss) => bottom - ((Math.min(loss, high) - low) / (high - low)) * (bottom - EDGE.top);
    const text = (string, at, kind) => h("text", { ...at, class: `pw-text pw-${kind}` }, string);
    svg.setAttribute("viewBox", `0 0 ${width} ${TALL}`);
    svg.replaceChildren(
      ...ticks(low, high).flatMap((loss) => [
        h("line", { x1: EDGE.left, x2: right, y1: y(loss), y2: y(loss), class: "pw-grid" }),
        text(String(Number(loss.toFixed(2))), { x: EDGE.left - 8, y: y(loss) + 4 }, "end")]),
      ...ticks(0, last).map((step) => text(formatCount(step), { x: x(step), y: bottom + 17 }, "middle")),
      text("training steps", { x: (EDGE.left + right) / 2, y: TALL - 6 }, "middle"),
      recorded.length && h("path", { d: path(recorded, x, y), class: "pw-line pw-recorded" }),
      ...runs.flatMap((run, index) => {
        const now = index === runs.length - 1, series = (key) => run.looks.map((look) => [look.step, look[key]]);
        const line = (points, kind) => points.length > 1 && colour(h("path", {
          d: path(points, x, y), class: `pw-line pw-${now ? kind : "sibling"}` }), known.methods[run.settings.method].color);
        const end = series("target").at(-1);
        return [now && line(run.train, "train"), now && line(series("base"), "before"), line(series("target"), "validation"),
          end && runs.length > 1 && text(`run ${run.id}`, { x: x(end[0]) + 3, y: y(end[1]) + 4 }, "start")].filter(Boolean);
      }));
    svg.setAttribute("aria-label", runs.length ? `${runs.map(said).join(" ")} Full fine-tuning, recorded: `
      + `${nats(recorded.at(-1)[1])} after ${recorded.at(-1)[0]} steps of 64 names.` : "No run yet.");
  };
  node.runs = [];
  node.draw = oncePerFrame(draw);
  new ResizeObserver(node.draw).observe(node);
  return node;
}

/** One run in a sentence. */
function said({ id, name, looks, step, settings, diverged }) {
  const { target, base } = looks.at(-1);
  return `Run ${id}, ${name}: ${step} of ${settings.steps} steps, loss on new names ${nats(target)}, `
    + `on names known before ${nats(base)}.${diverged ? " It has diverged." : ""}`;
}

/** Delta W of one matrix as a picture, red above zero and blue below, and its singular values. */
function picture() {
  const canvas = h("canvas", { role: "img", class: "pw-matrix" });
  const values = h("ol", { class: "pw-singular", "aria-label": "Singular values" });
  const caption = h("figcaption", { class: "pw-note" });
  const node = h("figure", { class: "pw-figure" }, canvas, values, caption);
  node.show = (name, { change, singular }) => {
    const largest = Math.max(...change.flat().map(Math.abs)) || 1;
    Object.assign(canvas, { width: change[0].length, height: change.length });
    const image = new ImageData(canvas.width, canvas.height);
    change.flat().forEach((value, i) => {
      const [r, g, b] = value > 0 ? [200, 60, 40] : [30, 100, 190];
      image.data.set([r, g, b, Math.round(255 * Math.abs(value) / largest)], 4 * i);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    const text = `\u0394W = s B A of ${name}: ${change.length} by ${change[0].length}, largest entry ${largest.toPrecision(2)}`;
    canvas.setAttribute("aria-label", text);
    setText(caption, `${text}. The bars are its singular values.`);
    values.replaceChildren(...singular.map((value) => {
      const bar = h("li", { title: value.toFixed(3) }, h("span", { class: "pw-unseen" }, value.toFixed(3)));
      bar.style.height = `${Math.max(2, 100 * value / (singular[0] || 1))}%`;
      return bar;
    }));
  };
  return node;
}

/** Where a name's letters look, one map of the model: virtual tokens left of the line, the letters right of it. */
function attention(prefix) {
  const choose = (name) => h("select", { id: `${prefix}-${name}`, class: "pw-select", "data-name": name, onChange: () => draw() });
  const layer = choose("layer"), head = choose("head"), table = h("table", { class: "pw-map" }), caption = h("p", { class: "pw-note" });
  let shown = null;
  const draw = () => {
    const { letters, virtual, weights } = shown, rows = weights[layer.value][head.value];
    const mass = rows.map((row) => row.slice(0, virtual).reduce((sum, weight) => sum + weight, 0));
    const text = virtual ? `${formatCount(virtual)} virtual tokens take ${Math.round(100 * mass.at(-1))} % of the last letter’s attention.`
      : "No virtual tokens here: every letter looks at itself and at those before it.";
    setText(caption, text);
    const names = [...Array(virtual).fill("•"), ...letters];
    table.replaceChildren(h("caption", { class: "pw-unseen" }, `Layer ${Number(layer.value) + 1}, head ${Number(head.value) + 1}, in percent. ${text}`),
      h("thead", {}, h("tr", {}, h("td", {}), ...names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...rows.map((row, at) => h("tr", {}, h("th", { scope: "row" }, letters[at]), ...row.map((weight, key) => {
        const cell = h("td", { title: `${Math.round(100 * weight)} %`, class: key === virtual - 1 ? "pw-edge" : "" },
          h("span", { class: "pw-unseen" }, `${Math.round(100 * weight)}`));
        cell.style.setProperty("--weight", `${Math.round(100 * weight)}%`);
        return cell;
      })))));
  };
  const field = (select, label) => h("div", { class: "pw-field" }, h("label", { for: select.id }, label), select);
  const node = h("div", {}, h("p", { class: "pw-names-title" }, "Where a held-out name’s letters look"),
    h("div", { class: "pw-group pw-pairs" }, field(layer, "Layer"), field(head, "Head")),
    h("div", { class: "pw-scroll", tabindex: 0 }, table), caption);
  node.show = (maps) => {
    shown = maps;
    [[layer, maps.weights], [head, maps.weights[0]]].forEach(([select, { length }]) => {
      if (select.length !== length) select.replaceChildren(...Array.from({ length }, (_, i) => h("option", { value: i }, `${i + 1}`)));
    });
    draw();
  };
  return node;
}

function build(place, known) {
  const prefix = uniquePrefix(), wanted = { method: "lora-all", size: 4, seed: 0 };
  for (const [key, values] of Object.entries(known.choices)) [wanted[key]] = values;
  const kept = [];
  let current = null, playing = false, busy = false, count = 0;
  const status = h("p", { role: "status", class: "pw-said" }, "Python starts at your first click.");
  const tell = (text) => setText(status, text);
  const asked = new Asked(tell);

  const pick = (name, options) => dropDown({ id: `${prefix}-${name}`, name, label: LABELS[name], options,
    onPick: (value) => set({ [name]: name === "target" || name === "method" ? value : Number(value) }) });
  const sorted = (key) => [...known.choices[key]].sort((a, b) => a - b);
  const fields = {
    target: pick("target", known.choices.target.map((name) => [name, name[0].toUpperCase() + name.slice(1)])),
    method: pick("method", Object.entries(known.methods).map(([key, { label }]) => [key, label])),
    alpha: pick("alpha", sorted("alpha").map((alpha) => [alpha, alpha])),
    rate: pick("rate", sorted("rate").map((rate) => [rate, rate])),
    names: pick("names", known.choices.names.map((size) => [size, size || "all"])),
    batch: pick("batch", sorted("batch").map((size) => [size, size])),
    steps: pick("steps", sorted("steps").map((steps) => [steps, steps])),
  };
  const size = slider({ id: `${prefix}-size`, name: "size", label: "Size", values: [1],
    say: (value) => `${known.methods[wanted.method].unit} ${value}`, onMove: (value) => set({ size: value }) });
  const seed = h("input", { type: "number", id: `${prefix}-seed`, min: 0, max: 9999, step: 1, class: "pw-select",
    onChange: () => set({ seed: Math.min(9999, Math.max(0, Math.trunc(seed.valueAsNumber) || 0)) }) });
  const seedField = h("div", { class: "pw-field" }, h("label", { for: seed.id }, LABELS.seed), seed);

  const press = (text, act) => h("button", { type: "button", class: "pw-button", onClick: () => act().catch(fail) }, text);
  const play = press("Train", () => (playing ? pause() : train(Infinity)));
  const one = press("One step", () => train(1));
  const fork = press("Fork this run", forkIt);
  const clear = press("Forget the other runs", async () => { kept.length = 0; show(); });
  const download = press("Download the adapter", save);
  const file = h("input", { type: "file", accept: ".zip", class: "pw-unseen", tabindex: -1, "aria-hidden": "true",
    onChange: () => read().catch(fail) });
  const load = press("Load an adapter", async () => file.click());
  const losses = chart(known), facts = h("dl", { class: "pw-facts" }), made = h("ul", { class: "pw-names" });
  const matrix = h("select", { id: `${prefix}-matrix`, class: "pw-select", "data-name": "matrix", onChange: () => look().catch(fail) });
  const maps = attention(prefix), update = picture(), rows = h("tbody", {});
  const updates = h("div", {}, h("div", { class: "pw-field" }, h("label", { for: matrix.id }, "What LoRA adds to"), matrix), update);
  const key = (kind, text) => h("li", {}, h("svg", { viewBox: "0 0 26 10", width: 26, height: 10, "aria-hidden": "true" },
    h("path", { d: "M0,5L26,5", class: `pw-line pw-${kind}` })), text);

  /** Take new settings; those that a run can't change in its course make the next click start another. */
  function set(values) {
    Object.assign(wanted, values);
    const { sizes } = known.methods[wanted.method];
    if (!sizes.includes(wanted.size)) wanted.size = sizes[nearest(sizes, Math.max(1, wanted.size))];
    if ("rate" in values && current && !playing && !changed()) tell("The run goes on at the new rate.");
    show();
  }
  const changed = () => !current || Object.keys(current.settings)
    .some((name) => name !== "rate" && String(current.settings[name]) !== String(wanted[name]));
  const ended = () => current.diverged || current.step >= current.settings.steps;
  const call = (method, text = "") => asked.do(`say(runs[${current.id}].${method}(${text}))`);

  async function begin() {
    if (current) kept.push(current);
    const id = ++count, settings = { ...wanted }, { label, unit } = known.methods[settings.method];
    current = null;
    const started = await asked.do(`runs[${id}] = Run(**${JSON.stringify(settings)})\nsay(runs[${id}].start())`);
    current = { id, settings, rate: settings.rate, name: unit ? `${label}, ${unit} ${settings.size}` : label,
      train: [], looks: [], step: 0, trainable: started.trainable, matrices: started.matrices, bytes: 4 * started.trainable };
    take(started);
    await look();
  }

  function take({ step, losses: trained = [], held_out: seen, diverged }) {
    trained.forEach((loss, i) => current.train.push([step - trained.length + i + 1, loss]));
    Object.assign(current, { step, diverged });
    if (seen) current.looks.push({ step, ...seen });
  }

  /** What is dear to compute: names, and the picture of the update. */
  async function look() {
    if (!current) return;
    made.replaceChildren(...(await call("names")).map((name) => h("li", {}, name || "(empty)")));
    if (current.matrices.length) {
      if (matrix.length !== current.matrices.length || matrix.options[0].value !== current.matrices[0]) {
        matrix.replaceChildren(...current.matrices.map((name) => h("option", { value: name }, name)));
        matrix.value = current.matrices.find((name) => name.includes("v_proj")) ?? current.matrices[0];
      }
      update.show(matrix.value, await call("update", JSON.stringify(matrix.value)));
    }
    maps.show(await call("attention"));
    show();
  }

  async function train(steps) {
    if (busy) return;
    busy = playing = true;
    show();
    try {
      if (changed() || ended()) await begin();
      let spent = 0, taken = 0;
      while (playing && steps > taken && !ended()) {
        if (current.rate !== wanted.rate) {
          current.rate = wanted.rate;
          await asked.do(`runs[${current.id}].change_rate(${wanted.rate})`);
        }
        const began = performance.now(), before = current.step;
        take(await call("step", Math.min(AT_ONCE, steps - taken)));
        spent += performance.now() - began;
        taken += current.step - before;
        tell(current.diverged ? `Diverged after ${current.step} steps: ${current.diverged}`
          : `Step ${current.step} of ${current.settings.steps}, ${threeDigits.format(1000 * taken / spent)} steps a second`);
        show();
        if (current.step % 50 === 0) await look();
      }
      if (!current.diverged) await look();
    } finally {
      busy = playing = false;
      show();
    }
  }

  async function pause() { playing = false; }

  async function forkIt() {
    const id = ++count;
    tell(`Run ${id} takes the same ${current.step} steps again …`);
    await asked.do(`runs[${id}] = runs[${current.id}].fork()`);
    kept.push({ ...current, train: [...current.train], looks: [...current.looks] });
    current = { ...current, id, settings: { ...current.settings } };
    tell(`Run ${id} stands where run ${kept.at(-1).id} stood: change its rate, and go on.`);
    show();
  }

  async function save() {
    const bytes = Uint8Array.from(atob(await call("files")), (letter) => letter.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([bytes], { type: "application/zip" }));
    h("a", { href: address, download: `${current.settings.method}-${current.settings.size}.zip` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  async function read() {
    const bytes = new Uint8Array(await file.files[0].arrayBuffer());
    file.value = "";
    if (bytes.length > 2e7) throw new Error("This file is larger than any adapter of the small Llama.");
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    const found = await asked.do(`say(loaded(${JSON.stringify(wanted.target)}, "${btoa(text)}"))`);
    made.replaceChildren(...found.names.map((name) => h("li", {}, name || "(empty)")));
    tell(`Loaded: ${formatCount(found.trainable)} parameters, loss on new names ${nats(found.held_out.target)}, `
      + `on names known before ${nats(found.held_out.base)}. Below are names that it makes up.`);
  }

  /** After an error: a Python that broke has lost its runs, any other goes on. */
  function fail(error) {
    playing = busy = false;
    if (!asked.python.ready) { current = null; kept.length = 0; }
    tell(`That did not work: ${error.message}`);
    show();
  }

  function show() {
    const { unit, sizes, color } = known.methods[wanted.method];
    colour(root, color);
    for (const [name, field] of Object.entries(fields)) field.show(String(wanted[name]));
    seed.value = wanted.seed;
    size.hidden = !unit;
    size.allow(sizes);
    size.show(wanted.size);
    setText(size.querySelector("label"), unit ? unit[0].toUpperCase() + unit.slice(1) : "Size");
    fields.alpha.hidden = !wanted.method.startsWith("lora");
    setText(play, playing ? "Pause" : changed() || ended() ? "Train" : "Go on");
    one.disabled = playing;
    for (const control of [fork, download]) control.disabled = !current || playing;
    load.disabled = playing;
    clear.hidden = !kept.length;
    updates.hidden = !current?.matrices.length;
    maps.hidden = !current;
    losses.runs = current ? [...kept, current] : kept;
    losses.draw();
    rows.replaceChildren(...losses.runs.map((run) => h("tr", {}, ...[`${run.id}`, run.name, run.rate ?? run.settings.rate,
      `${run.step}`, formatCount(run.trainable), nats(Math.min(...run.looks.map(({ target }) => target))),
      nats(run.looks.at(-1).target), nats(run.looks.at(-1).base)].map((text, i) => h(i ? "td" : "th", {}, text)))));
    if (current) {
      facts.replaceChildren(...[["Trainable parameters", `${formatCount(current.trainable)} of ${formatCount(known.parameters)}`],
        ["Loss on new names", `${nats(current.looks.at(-1).target)}; full fine-tuning, recorded: ${nats(known.full[current.settings.target])}`],
        ["Loss on names known before", `${nats(current.looks.at(-1).base)}; at the start ${nats(current.looks[0].base)}`],
        ["To store it, float32", formatBytes(current.bytes)]]
        .map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
    }
  }

  const root = widgetRoot("Playground",
    h("div", { class: "pw-controls" }, h("div", { class: "pw-group" }, fields.target, fields.method, size, fields.alpha),
      h("div", { class: "pw-group pw-pairs" }, fields.rate, fields.steps, fields.names, fields.batch, seedField)),
    h("div", { class: "pw-bar-tools" }, h("div", {}, play, one, fork, clear), h("div", {}, download, load, file)),
    status, h("p", { class: "pw-axis-title pw-curve-title" }, "loss, nats per character"), losses,
    h("ul", { class: "pw-legend" }, key("validation", "new names held out"), key("train", "names trained on"),
      key("before", "names known before"), key("sibling", "earlier runs: new names"),
      key("recorded", "full fine-tuning, recorded: new names held out, 64 names a step")),
    facts, h("div", { class: "pw-two" }, h("div", {}, h("p", { class: "pw-names-title" }, "Made up now"), made, maps), updates),
    h("div", { class: "pw-scroll", tabindex: 0 }, h("table", { class: "pw-table" }, h("caption", {}, "The runs of this visit"),
      h("thead", {}, h("tr", {}, ["Run", "Method", "Rate", "Steps", "Trainable", "Best loss", "Last loss", "Known before"]
        .map((text) => h("th", { scope: "col" }, text)))), rows)));
  for (const button of document.querySelectorAll("button[data-settings]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      set({ ...JSON.parse(button.dataset.settings) });
      root.scrollIntoView({ block: "start" });
      play.focus();
    });
  }
  show();
  place.replaceChildren(root);
}

const place = document.getElementById("playground-place");
if (place) build(place, KNOWN); // what tools/in_page/build.py writes above all this
