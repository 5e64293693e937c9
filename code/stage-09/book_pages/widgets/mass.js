// A prefix in a real attention map: each letter's weights add up to one, and what the prefix takes of
// it is missing on the letters. With P keys of one score c the prefix takes P e^c / (P e^c + Z).

const MASS = { left: 30, top: 40, cell: 36, gap: 10 };

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const set = (name) => (value) => { model.set(name, Number(value)); model.save_changes(); };
  const numbers = (name) => get(name).split(" ").map(Number);
  const letters = get("_letters");
  const T = letters.length;
  const [layers, heads] = get("_sizes");
  const [longest, edge] = get("_limits");
  const weights = numbers("_weights").map((value) => value * get("_unit"));
  const z = numbers("_z");

  const bar = (name, legend, count) => choice({ prefix, name, legend, onPick: set(name),
    options: Array.from({ length: count }, (_, i) => [String(i + 1), String(i + 1)]) });
  const layer = bar("layer", "Layer", layers);
  const head = bar("head", "Head", heads);
  const from = (low, high, step) => Array.from({ length: 1 + (high - low) / step }, (_, i) => low + i * step);
  const bySteps = (name, label, values) => colour(slider({ id: `${prefix}-${name}`, name, label, values,
    say: (value) => `${label}: ${value}`, onMove: set(name),
    write: (value) => String(value).replace("-", "\u2212") }), get("_color"));
  const length = bySteps("length", "Prefix length P", from(0, longest, 1));
  const score = bySteps("score", "Score of its keys", from(-edge, edge, 0.5));
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();

  const { left, top, cell, gap } = MASS;
  const x = (column) => left + column * cell + (column ? gap : 0);
  const y = (row) => top + row * cell;
  const square = (row, column, kind) => h("rect", { x: x(column), y: y(row), width: cell - 2,
    height: cell - 2, class: kind });
  const grid = letters.map((_, t) => [square(t, 0, "pw-prefix"),
    ...letters.map((_, s) => square(t, s + 1, s > t ? "pw-hidden" : ""))]);
  const label = (text, at, up) => h("text", { x: at, y: up }, text);
  const picture = colour(h("svg", { viewBox: `0 0 ${x(T + 1) + 4} ${y(T) + 4}`, class: "pw-mass", role: "img" },
    label("prefix", x(0) + cell / 2, 24), letters.map((letter, s) => label(letter, x(s + 1) + cell / 2, 24)),
    letters.map((letter, t) => label(letter, 12, y(t) + cell / 2 + 5)), grid.flat()), get("_color"));
  const rows = letters.map(() => [h("td", {}), h("td", {})]);

  const draw = () => {
    const map = (get("layer") - 1) * heads + get("head") - 1;
    const taken = get("length") * Math.exp(get("score"));
    const share = letters.map((_, t) => taken / (taken + z[map * T + t]));
    layer.show(String(get("layer")));
    head.show(String(get("head")));
    length.show(get("length"));
    score.show(get("score"));
    grid.forEach((row, t) => row.forEach((one, column) => {
      const weight = column ? (1 - share[t]) * weights[(map * T + t) * T + column - 1] : share[t];
      one.setAttribute("fill-opacity", weight.toFixed(3));
    }));
    setText(figure, formatShare(share[0]));
    const rest = `of the first symbol's attention goes to the prefix, ${formatShare(share[T - 1])} of the last `
      + `letter's. ${get("score") === 0 ? "These are keys of zeros." : ""}`.trim();
    setText(sentence, rest);
    picture.setAttribute("aria-label", `Layer ${get("layer")}, head ${get("head")}. ${figure.textContent} ${rest}`);
    rows.forEach(([one, two], t) => {
      setText(one, formatShare(share[t]));
      setText(two, formatShare(1 - share[t]));
    });
    return `${figure.textContent} ${rest}`;
  };

  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["layer", "head", "length", "score"].map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(widgetRoot("What a prefix takes of the attention",
    h("div", { class: "pw-controls pw-pair" }, length, score),
    h("div", { class: "pw-controls pw-pair" }, layer, head), headline, spoken, picture,
    h("details", { class: "pw-details" }, h("summary", {}, "Letter by letter"),
      h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" },
        h("caption", {}, "Where each letter's attention goes"),
        h("thead", {}, h("tr", {}, ["letter", "to the prefix", "to the letters so far"].map((name) =>
          h("th", { scope: "col" }, name)))),
        h("tbody", {}, letters.map((letter, t) => h("tr", {}, h("th", { scope: "row" }, letter), rows[t])))))),
    h("p", { class: "pw-note" }, "A row is a letter that looks, a column what it looks at; the dot opens the "
      + "name. The darker, the more. A trained key scores differently with each query; here all have one score. "
      + "The other layers work without a prefix.")));
  draw();
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
