// One token's way through an adapter: x, down to the bottleneck, through the ReLU, up again, and added
// to x. A unit that is below zero for every token is dead: nothing passes, forward or back.

const SIGNAL = { width: 420, height: 262, top: 26, bar: 34, row: 28, at: [36, 132, 208, 296, 382] };

/** A column of bars around a line at zero, as tall as its rows need, in the middle of the picture. */
function column(at, count, title) {
  const { top, row, bar, height } = SIGNAL;
  const first = top + (height - top - 8 - count * row) / 2;
  const y = (index) => first + index * row + 5;
  const bars = Array.from({ length: count }, () => h("rect", { height: row - 10 }));
  const added = Array.from({ length: count }, () => h("rect", { height: row - 10, class: "pw-on" }));
  const notes = Array.from({ length: count }, (_, index) => h("text", { x: at + 5, y: y(index) + 14,
    class: "pw-never" }));
  const node = h("g", {}, h("text", { x: at, y: 14, "text-anchor": "middle" }, title),
    bars, added, notes, h("line", { x1: at, x2: at, y1: first, y2: first + count * row }));
  const place = (rect, index, from, to, kind) => Object.entries({ x: Math.min(from, to), y: y(index),
    width: Math.abs(to - from), class: kind }).forEach(([name, value]) => rect.setAttribute(name, value));
  /** Values from `base` on (0 where left out), at a scale; kinds and notes by row. */
  node.show = (values, limit, kinds, base = null, words = []) => values.forEach((value, index) => {
    const x = (number) => at + (bar * number) / (limit || 1);
    place(bars[index], index, x(0), x(base ? base[index] : value), kinds[index]);
    place(added[index], index, x(base ? base[index] : 0), x(base ? value : 0), "pw-on");
    setText(notes[index], words[index] ?? "");
  });
  node.middle = (index) => y(index) + (row - 10) / 2;
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const set = changer(model);
  const numbers = (name) => get(name).split(" ").map((text) => Number(text) * get("_unit"));
  const [d, most, tokens] = get("_sizes");
  const [noise, common, down, up] = ["_noise", "_common", "_down", "_up"].map(numbers);
  const upTo = (count) => Array.from({ length: count }, (_, index) => index);
  const input = (token) => upTo(d).map((i) => noise[token * d + i] + get("offset") * common[i]);
  const before = (x, unit) => x.reduce((sum, value, i) => sum + value * down[i * most + unit], 0);
  const length = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  const largest = (...lists) => Math.max(...lists.flat().map(Math.abs));

  const control = (name, label, values, say, from) => colour(slider({ id: `${prefix}-${name}`, name,
    label, values, say, onMove: (value) => set({ [name]: from(value) }) }), get("_color"));
  const units = control("units", "Bottleneck m", upTo(most).map((i) => i + 1), (n) => `${n} units`, Number);
  const token = control("token", "Token", upTo(tokens).map((i) => i + 1), (n) => `token ${n}`, Number);
  const offset = choice({ prefix, name: "offset", legend: "Common offset",
    options: get("_offsets").map((value) => [String(value), String(value)]),
    onPick: (value) => set({ offset: Number(value) }) });
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const picture = colour(h("svg", { viewBox: `0 0 ${SIGNAL.width} ${SIGNAL.height}`, class: "pw-signal",
    role: "img" }), get("_color"));
  const rows = h("tbody", {});

  const draw = () => {
    const m = get("units");
    const x = input(get("token") - 1);
    const u = upTo(m).map((unit) => before(x, unit));
    const a = u.map((value) => Math.max(0, value));
    const change = upTo(d).map((i) => a.reduce((sum, value, unit) => sum + value * up[unit * d + i], 0));
    const out = x.map((value, i) => value + change[i]);
    const inputs = upTo(tokens).map(input);
    const fires = upTo(m).map((unit) => inputs.filter((one) => before(one, unit) > 0).length);
    const dead = fires.filter((count) => count === 0).length;

    units.show(m);
    token.show(get("token"));
    offset.show(String(get("offset")));
    const [one, two, three, four, five] = SIGNAL.at;
    const columns = [column(one, d, "x"), column(two, m, "x W↓"), column(three, m, "relu"),
      column(four, d, "times W↑"), column(five, d, "h")];
    const plain = (list) => list.map(() => "");
    columns[0].show(x, largest(x), plain(x));
    columns[1].show(u, largest(u), u.map((value) => (value > 0 ? "pw-on" : "pw-cut")));
    columns[2].show(a, largest(u), plain(a).map(() => "pw-on"), null,
      fires.map((count) => (count ? "" : "dead")));
    columns[3].show(change, largest(change), plain(x).map(() => "pw-on"));
    columns[4].show(out, largest(x, out), plain(x), x);
    const funnel = (left, right, a1, a2) => h("path", { d: `M${left + 38},${columns[a1[0]].middle(0) - 10}`
      + `L${right - 38},${columns[a2[0]].middle(0) - 10}L${right - 38},${columns[a2[0]].middle(a2[1] - 1) + 10}`
      + `L${left + 38},${columns[a1[0]].middle(a1[1] - 1) + 10}Z` });
    picture.replaceChildren(funnel(one, two, [0, d], [1, m]), funnel(three, four, [2, m], [3, d]), ...columns);
    const share = formatShare(length(change) / length(x));
    setText(figure, `${a.filter((value) => value > 0).length} of ${m}`);
    const rest = `units let this token pass; what they add is ${share} of its length. `
      + (dead ? `${dead} of ${m} ${dead === 1 ? "is" : "are"} dead: no token of ${tokens} wakes them.`
        : `Each unit fires for some of the ${tokens} tokens.`);
    setText(sentence, rest);
    picture.setAttribute("aria-label", `${figure.textContent} ${rest}`);
    rows.replaceChildren(...u.map((value, unit) => h("tr", {}, h("th", { scope: "row" }, String(unit + 1)),
      [value.toFixed(3), a[unit].toFixed(3), `${fires[unit]} of ${tokens}`].map((text) => h("td", {}, text)))));
    return `${figure.textContent} ${rest}`;
  };

  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["change:units", "change:token", "change:offset"];
  events.forEach((event) => model.on(event, redraw));
  el.append(widgetRoot("A signal through the bottleneck",
    h("div", { class: "pw-controls pw-pair" }, units, token), offset, headline, spoken, picture,
    h("details", { class: "pw-details" }, h("summary", {}, "The units in numbers"),
      h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" },
        h("caption", {}, "This token, and how many tokens wake each unit"),
        h("thead", {}, h("tr", {}, ["unit", "before the ReLU", "after", "fires on"].map((name) =>
          h("th", { scope: "col" }, name)))), rows))),
    h("p", { class: "pw-note" }, "Each column has its own scale, h that of x. Dashed: cut to zero. The "
      + "offset moves all tokens together; it is given in units of their noise.")));
  draw();
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
