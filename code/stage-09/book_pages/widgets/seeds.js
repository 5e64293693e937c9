// Which method leads? Left: the order over all recorded seeds. Right: the order in one draw of a few
// of them. All draws were made in Python.

const SLOPES = { width: 420, row: 27, left: 140, right: 280 };

/** Places of the values, from the lowest up: [0.3, 0.1] -> [1, 0]. */
function places(values) {
  const order = values.map((_, index) => index).sort((a, b) => values[a] - values[b]);
  return values.map((_, index) => order.indexOf(index));
}

function slopes(labels) {
  const { width, row, left, right } = SLOPES;
  const y = (place) => (place + 1) * row;
  const rows = labels.map((label, index) => {
    const line = h("line", { x1: left, y1: y(index), x2: right });
    const there = h("text", { x: right + 12 });
    return { line, there, nodes: [
      h("text", { x: left - 12, y: y(index) + 5, "text-anchor": "end" }, `${index + 1}. ${label}`),
      line, there] };
  });
  const node = h("svg", { viewBox: `0 0 ${width} ${y(labels.length)}`, class: "pw-slopes",
    role: "img" }, rows.flatMap((row) => row.nodes));
  node.show = (now) => rows.forEach(({ line, there }, index) => {
    line.setAttribute("y2", y(now[index]));
    line.setAttribute("class", now[index] === index ? "" : "pw-moved");
    there.setAttribute("y", y(now[index]) + 5);
    setText(there, `${now[index] + 1}. ${labels[index]}`);
  });
  node.say = (text) => node.setAttribute("aria-label", text);
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const change = changer(model);
  const labels = get("_labels");
  const shown = () => get("_draws")[get("count")];

  const count = colour(slider({
    id: `${prefix}-count`, name: "count", label: "Seeds in a draw", values: get("_counts"),
    say: (n) => `${n} ${n === 1 ? "seed" : "seeds"}`, onMove: (value) => change({ count: value }),
  }), get("_color"));
  const again = h("button", { type: "button", class: "pw-button", "data-name": "again",
    onClick: () => change({ draw: (get("draw") + 1) % shown().length }) }, "Draw again");
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const picture = colour(slopes(labels), get("_color"));
  const cells = labels.map(() => [h("td", {}), h("td", {}), h("td", {}), h("td", {})]);
  const table = h("table", { class: "pw-table" },
    h("caption", {}, "The draw in numbers"),
    h("thead", {}, h("tr", {}, ["method", "mean, all seeds", "mean, this draw", "place",
      "draws in which the next one is ahead"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, labels.map((label, index) => h("tr", {},
      h("th", { scope: "row" }, label), cells[index]))));

  const draw = () => {
    const means = shown()[get("draw")];
    const now = places(means);
    const turned = get("_turned")[get("count")];
    const moved = now.filter((place, index) => place !== index).length;
    const first = labels[now.indexOf(0)];
    count.show(get("count"));
    setText(figure, `${moved} of ${labels.length}`);
    const rest = `methods stand in another place than over all seeds; ${first} leads.`;
    setText(sentence, rest);
    picture.show(now);
    picture.say(`The order in this draw: ${labels.map((_, place) => labels[now.indexOf(place)])
      .join(", ")}.`);
    cells.forEach(([all, mean, place, share], index) => {
      setText(all, get("_means")[index].toFixed(4));
      setText(mean, means[index].toFixed(4));
      setText(place, String(now[index] + 1));
      setText(share, index < turned.length ? formatShare(turned[index]) : "\u2013");
    });
    return `${moved} of ${labels.length} ${rest}`;
  };
  draw();

  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["change:count", "change:draw"];
  events.forEach((event) => model.on(event, redraw));
  el.append(widgetRoot("Rankings from a few seeds",
    h("div", { class: "pw-controls" }, h("div", { class: "pw-group" }, count)),
    h("div", { class: "pw-bar-tools" }, again), headline, spoken, picture,
    h("details", {}, h("summary", {}, "All means"), h("div", { class: "pw-scroll" }, table)),
    h("p", { class: "pw-note" }, "Left: the order over all recorded seeds. Right: the order in "
      + "this draw. A draw takes seeds with replacement, the same for all methods.")));
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
