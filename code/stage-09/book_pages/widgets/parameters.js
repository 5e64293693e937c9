// The parameter explorer. Python counts one unit of every method (one rank, one bottleneck unit,
// one prefix or prompt token) on every model that can be chosen; here a cost is multiplied by its
// setting and drawn. There is no formula of any method in this file.

const SHAPE = [
  ["width", "_widths", "Model width", (n) => `width ${formatCount(n)}`],
  ["layers", "_layer_counts", "Layers", (n) => `${n} ${n === 1 ? "layer" : "layers"}`],
];

/** Parameters and share of every method at the settings of a model. */
function countParameters(get) {
  const costs = get("_costs")[`${get("width")},${get("layers")}`];
  const full = costs.full;
  return get("_methods").map((method) => {
    const params = costs[method.key] * (method.setting ? get(method.setting) : 1);
    return { ...method, params, ratio: params / full };
  });
}

function settingText(method, get) {
  return method.setting ? `${method.unit} ${formatCount(get(method.setting))}` : method.unit;
}

/** Horizontal bars over powers of ten; the table beside it says the same in text. */
function barChart(prefix, methods) {
  const axis = h("div", { class: "pw-axis" });
  const rows = new Map(methods.map((method) => {
    const bar = h("span", { class: "pw-bar" });
    const value = h("span", { class: "pw-bar-value" });
    const row = h("div", { class: "pw-bar-row" },
      h("span", { class: "pw-bar-label" }, method.label),
      h("span", { class: "pw-bar-track" }, bar, value));
    colour(row, method.color);
    return [method.key, { row, bar, value }];
  }));
  const node = h("div", { class: "pw-chart", role: "img" },
    h("div", { class: "pw-plot" }, axis, [...rows.values()].map(({ row }) => row)),
    h("p", { class: "pw-axis-title" },
      "trainable parameters, log scale: every line is ten times the one before"));
  let decades = 0;

  node.show = (counts) => {
    const needed = Math.ceil(Math.log10(Math.max(...counts.map(({ params }) => params))));
    if (needed !== decades) {
      decades = needed;
      axis.replaceChildren(...Array.from({ length: decades + 1 }, (_, power) => {
        const line = h("span", { class: "pw-tick" },
          power % 3 === 0 ? h("span", {}, power ? formatShort(10 ** power) : "1") : null);
        line.style.left = `${(100 * power) / decades}%`;
        return line;
      }));
    }
    for (const { key, params } of counts) {
      const { bar, value } = rows.get(key);
      const part = Math.log10(params) / decades;
      bar.style.transform = `scaleX(${part})`;
      value.style.transform = `translate(${100 * part}%, -50%)`;
      setText(value, formatShort(params));
    }
    node.setAttribute("aria-label", "Bars of trainable parameters on a log scale: "
      + counts.map(({ label, params }) => `${label} ${formatShort(params)}`).join(", ")
      + ". The table below has the exact numbers.");
  };
  return node;
}

function countTable(methods) {
  const saved = h("th", { scope: "col" });
  const rows = new Map(methods.map((method) => {
    const cells = Object.fromEntries(["setting", "params", "ratio", "bytes"].map((key) =>
      [key, h(key === "setting" ? "span" : "td", { class: `pw-${key}`, "data-cell": key })]));
    const row = h("tr", { "data-method": method.key },
      h("th", { scope: "row" },
        colour(h("span", { class: "pw-swatch" }), method.color),
        h("span", { class: "pw-method" }, method.label), " ", cells.setting),
      cells.params, cells.ratio, cells.bytes);
    return [method.key, { row, ...cells }];
  }));
  const caption = h("caption", {});
  const node = h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" }, caption,
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Method"),
      h("th", { scope: "col" }, "Trainable parameters"),
      h("th", { scope: "col" }, "Share of full"),
      saved)),
    h("tbody", {}, [...rows.values()].map(({ row }) => row))));

  node.show = (counts, get, size) => {
    setText(caption, `Width ${formatCount(get("width"))}, ${get("layers")} layers, ${get("heads")} heads`);
    setText(saved, `Saved per task, ${get("precision")}`);
    for (const method of counts) {
      const cells = rows.get(method.key);
      setText(cells.setting, settingText(method, get));
      setText(cells.params, formatCount(method.params));
      setText(cells.ratio, formatShare(method.ratio));
      setText(cells.bytes, formatBytes(method.params * size));
      cells.row.dataset.params = method.params;
      cells.row.dataset.ratio = method.ratio;
      cells.row.dataset.bytes = method.params * size;
    }
  };
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const methods = get("_methods");
  const presets = get("_presets");
  const tuned = methods.filter(({ setting }) => setting);
  const precisions = get("_precisions");
  const settings = tuned.map(({ setting }) => setting);
  const watched = ["width", "layers", "heads", "precision", ...settings];
  const start = Object.fromEntries(watched.map((name) => [name, get(name)]));
  let focus = tuned[0].key; // the method that the sentence is about: the one moved last

  const change = changer(model);

  const preset = dropDown({
    id: `${prefix}-preset`, name: "preset", label: "Model",
    options: [
      ...presets.map(({ name, width, layers }) =>
        [name, `${name}: width ${formatCount(width)}, ${layers} layers`]),
      ...(get("_shape_sliders") ? [["", "A shape of your own"]] : []),
    ],
    onPick: (name) => {
      const found = presets.find((entry) => entry.name === name);
      if (found) change({ width: found.width, layers: found.layers, heads: found.heads });
    },
  });
  const shape = get("_shape_sliders") ? [
    ...SHAPE.map(([name, allowed, label, say]) => slider({
      id: `${prefix}-${name}`, name, label, say, values: get(allowed),
      onMove: (value) => {
        if (name !== "width") return change({ [name]: value });
        const heads = get("_head_counts")[value];
        change({ width: value, heads: heads[nearest(heads, get("heads"))] });
      },
    })),
    slider({
      id: `${prefix}-heads`, name: "heads", label: "Attention heads",
      values: get("_head_counts")[get("width")],
      say: (n) => `${n} ${n === 1 ? "head" : "heads"} of width ${formatCount(get("width") / n)}`,
      onMove: (value) => change({ heads: value }),
    }),
  ] : [];
  const shapeNames = [...SHAPE.map(([name]) => name), "heads"];
  const sliders = tuned.map((method) => colour(slider({
    id: `${prefix}-${method.setting}`, name: method.setting, label: method.control,
    values: method.values, say: (n) => `${method.unit} ${formatCount(n)}`,
    onMove: (value) => { focus = method.key; change({ [method.setting]: value }); },
  }), method.color));
  const precision = choice({
    prefix, name: "precision", legend: "Save as",
    options: precisions.map(({ name }) => [name, name]),
    onPick: (name) => change({ precision: name }),
  });
  const reset = h("button", { type: "button", class: "pw-button", onClick: () => change(start) },
    "Reset");

  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const chart = barChart(prefix, methods);
  const table = countTable(methods);

  const root = widgetRoot(get("_title"),
    h("div", { class: "pw-controls" },
      h("div", { class: "pw-group" }, preset, shape),
      h("div", { class: "pw-group" }, sliders)),
    h("div", { class: "pw-bar-tools" }, precision, reset),
    headline, spoken, chart, table,
    h("p", { class: "pw-note" }, get("_note")));
  if (!shape.length) root.classList.add("pw-small");

  const draw = () => {
    const counts = countParameters(get);
    const size = precisions.find(({ name }) => name === get("precision")).bytes;
    const now = counts.find(({ key }) => key === focus);

    preset.show(presets.find((entry) => shapeNames.every((name) => entry[name] === get(name)))
      ?.name ?? "");
    shape.forEach((node, index) => {
      if (shapeNames[index] === "heads") node.allow(get("_head_counts")[get("width")]);
      node.show(get(shapeNames[index]));
    });
    sliders.forEach((node, index) => node.show(get(settings[index]),
      `${formatCount(counts.find(({ key }) => key === tuned[index].key).params)} parameters`));
    precision.show(get("precision"));
    reset.disabled = watched.every((name) => get(name) === start[name]);

    colour(headline, now.color);
    setText(figure, formatCount(now.params));
    const rest = `trainable parameters with ${now.label}, ${settingText(now, get)}: `
      + `${formatShare(now.ratio)} of full fine-tuning, `
      + `${formatBytes(now.params * size)} saved per task.`;
    setText(sentence, rest);
    chart.show(counts);
    table.show(counts, get, size);
    return `${formatCount(now.params)} ${rest}`;
  };
  draw();

  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = watched.map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(root);
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
