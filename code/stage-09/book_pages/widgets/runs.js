// The recorded runs of section 9.7: choose target, method and size; see the curve, the numbers and
// names that the model makes up. Nothing is computed here but positions on the screen.

const MARGIN = { top: 10, right: 12, bottom: 40, left: 46 };
const HEIGHT = 260;

const nats = (value) => value.toFixed(2);
const spread = (sd) => (sd === null ? "" : `\u00a0±\u00a0${sd.toFixed(2)}`);
const signed = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`;

/** Loss over steps; the scale is the same for all runs of a target, so that runs can be compared. */
function lossChart() {
  const svg = h("svg", { role: "img", height: HEIGHT, class: "pw-curve" });
  const node = h("figure", { class: "pw-figure" }, svg);
  let last = null;

  const draw = () => {
    if (!last) return;
    const { run, siblings, before, extent, target } = last;
    const width = Math.max(240, node.clientWidth || 600);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const steps = run.steps[run.steps.length - 1];
    const x = (step) => MARGIN.left + (step / steps) * (right - MARGIN.left);
    const y = (loss) => bottom - ((loss - extent[0]) / (extent[1] - extent[0]))
      * (bottom - MARGIN.top);
    const path = (xs, ys) => xs.map((step, i) => `${i ? "L" : "M"}${x(step)},${y(ys[i])}`).join("");
    const middle = run.train.map((_, i) => (run.steps[i] + run.steps[i + 1]) / 2);
    const line = (d, kind) => h("path", { d, class: `pw-line pw-${kind}` });
    const text = (string, at, kind) => h("text", { ...at, class: `pw-text pw-${kind}` }, string);

    svg.replaceChildren(
      ...ticks(...extent).flatMap((loss) => [
        h("line", { x1: MARGIN.left, x2: right, y1: y(loss), y2: y(loss), class: "pw-grid" }),
        text(String(Number(loss.toFixed(2))), { x: MARGIN.left - 8, y: y(loss) + 4 }, "end"),
      ]),
      ...ticks(0, steps).map((step) =>
        text(formatCount(step), { x: x(step), y: bottom + 17 }, "middle")),
      text("training steps", { x: (MARGIN.left + right) / 2, y: HEIGHT - 6 }, "middle"),
      h("line", { x1: MARGIN.left, x2: right, y1: y(before), y2: y(before), class: "pw-before" }),
      ...siblings.filter((other) => other !== run)
        .map((other) => line(path(other.steps, other.validation), "sibling")),
      h("path", { class: "pw-band", d: `${path(run.steps, run.high)}L${
        path([...run.steps].reverse(), [...run.low].reverse()).slice(1)}Z` }),
      line(path(middle, run.train), "train"),
      line(path(run.steps, run.validation), "validation"));
    svg.setAttribute("aria-label", `Loss on ${target} over ${steps} training steps: from `
      + `${nats(run.validation[0])} to ${nats(run.validation[run.validation.length - 1])} nats per `
      + "character on names held out. The table below the curve has the values.");
  };
  new ResizeObserver(draw).observe(node);
  node.show = (what) => { last = what; draw(); };
  return node;
}

function legend(sizes) {
  const key = (kind, text) => h("li", {},
    h("svg", { viewBox: "0 0 26 10", width: 26, height: 10, "aria-hidden": "true" },
      h("path", { d: "M0,5L26,5", class: `pw-line pw-${kind}` })), text);
  return h("ul", { class: "pw-legend" },
    key("validation", "held-out names"),
    key("train", "training names"), sizes,
    key("before", "held-out names, before training"));
}

function nameList(title) {
  const list = h("ul", { class: "pw-names" });
  const heading = h("p", { class: "pw-names-title" }, title);
  const node = h("div", {}, heading, list);
  node.show = (names, text) => {
    setText(heading, text);
    list.replaceChildren(...names.map((name) => h("li", {}, name || "(empty)")));
  };
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const runs = get("_runs");
  const methods = get("_methods");
  const before = get("_before");
  const find = () => runs[get("target")][get("method")].find(({ size }) => size === get("size"));
  const change = (values) => {
    const wanted = { target: get("target"), method: get("method"), size: get("size"), ...values };
    if (!runs[wanted.target][wanted.method]) [wanted.method] = Object.keys(runs[wanted.target]);
    const sizes = runs[wanted.target][wanted.method].map(({ size }) => size);
    if (!sizes.includes(wanted.size)) wanted.size = sizes[nearest(sizes, Math.max(wanted.size, 1))];
    for (const [name, value] of Object.entries(wanted)) model.set(name, value);
    model.save_changes();
  };

  const target = choice({
    prefix, name: "target", legend: "New names",
    options: Object.keys(runs).map((name) => [name, get("_targets")[name]]),
    onPick: (name) => change({ target: name }),
  });
  const method = dropDown({
    id: `${prefix}-method`, name: "method", label: "Method",
    options: Object.entries(methods).map(([key, { label }]) => [key, label]),
    onPick: (key) => change({ method: key }),
  });
  const size = slider({
    id: `${prefix}-size`, name: "size", label: "Size", values: [1],
    say: (value) => {
      const { unit } = methods[get("method")];
      return unit ? `${unit} ${value}` : "all weights";
    },
    onMove: (value) => change({ size: value }),
  });
  const chart = lossChart();
  const siblings = h("li", {},
    h("svg", { viewBox: "0 0 26 10", width: 26, height: 10, "aria-hidden": "true" },
      h("path", { d: "M0,5L26,5", class: "pw-line pw-sibling" })), "the other sizes");
  const keys = legend(siblings);

  const cell = () => h("td", {});
  const losses = ["target", "base"].map((name) => {
    const cells = [cell(), cell(), cell()];
    const head = h("th", { scope: "row" });
    return { head, cells, row: h("tr", { "data-loss": name }, head, cells) };
  });
  const caption = h("caption", {});
  const table = h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" }, caption,
    h("thead", {}, h("tr", {}, ["Loss, nats per character", "Before", "After", "Change"]
      .map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, losses.map(({ row }) => row))));
  const facts = h("dl", { class: "pw-facts" });
  const was = nameList();
  const now = nameList();
  const rows = h("tbody", {});
  const values = h("details", { class: "pw-details" }, h("summary", {}, "The curve as a table"),
    h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" },
      h("caption", {}, "Loss in nats per character"),
      h("thead", {}, h("tr", {}, ["Step", "Held-out names", "Training names since the row above"]
        .map((text) => h("th", { scope: "col" }, text)))), rows)));
  const spoken = announcer();

  const root = widgetRoot("Recorded fine-tuning runs",
    h("div", { class: "pw-controls" },
      h("div", { class: "pw-group" }, target, method), h("div", { class: "pw-group" }, size)),
    spoken,
    h("p", { class: "pw-axis-title pw-curve-title" }, "loss, nats per character"),
    chart, keys, table, facts,
    h("div", { class: "pw-two" }, was, now), values,
    h("p", { class: "pw-note" }, get("_note")));

  const draw = () => {
    const run = find();
    const { label, unit, color } = methods[get("method")];
    const place = get("_targets")[get("target")];
    const all = runs[get("target")];
    const what = unit ? `${label}, ${unit} ${run.size}` : label;
    colour(root, color);

    for (const option of method.select.options) option.disabled = !(option.value in all);
    target.show(get("target"));
    method.show(get("method"));
    size.allow(all[get("method")].map((other) => other.size));
    size.hidden = !unit;
    size.show(run.size, `${formatCount(run.trainable)} parameters`);
    setText(size.querySelector("label"), unit ? unit[0].toUpperCase() + unit.slice(1) : "Size");
    setText(keys.firstChild.lastChild, run.seeds > 1
      ? `held-out names: mean and range of ${run.seeds} seeds` : "held-out names: one seed");
    siblings.hidden = all[get("method")].length < 2;

    chart.show({
      run, siblings: all[get("method")], before: before.losses[get("target")], target: place,
      extent: get("_extents")[get("target")],
    });
    setText(caption, `${what}: ${run.seeds > 1 ? `mean ± standard deviation of ${run.seeds} seeds`
      : "one seed"}, at the step that did best on a validation part`);
    [["target", `${place} names, test part`, run.test], ["base", "Names it knew before", run.base]]
      .forEach(([key, title, [mean, sd]], index) => {
        const start = before.losses[key === "base" ? "base" : `${get("target")} test`];
        const { head, cells, row } = losses[index];
        setText(head, title);
        setText(cells[0], nats(start));
        setText(cells[1], nats(mean) + spread(sd));
        setText(cells[2], signed(mean - start));
        row.dataset.after = mean;
      });
    facts.replaceChildren(...[
      ["Trainable parameters", formatCount(run.trainable)],
      ["Saved file", formatBytes(run.file_bytes)],
      ["Learning rate, chosen by sweep", String(run.lr)],
    ].map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
    was.show(before.names, "Made up by the base model");
    now.show(run.names, `Made up after ${what}`);
    rows.replaceChildren(...run.steps.map((step, i) => h("tr", {},
      h("th", { scope: "row" }, formatCount(step)), h("td", {}, nats(run.validation[i])),
      h("td", {}, i ? nats(run.train[i - 1]) : "\u2013"))));
    return `${what}, ${formatCount(run.trainable)} trainable parameters: loss on ${place} names `
      + `${nats(run.test[0])}, on the names known before ${nats(run.base[0])} nats per character.`;
  };
  draw();
  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["target", "method", "size"].map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(root);
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
