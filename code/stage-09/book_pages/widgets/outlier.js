// One weight of a block grows; the levels stretch with it and the others lose theirs. All numbers
// were computed in Python, for every position of the slider.

const RULER = { width: 640, height: 250, middle: 125, unit: 100 }; // unit: a weight of 1

function ruler(count, outlier) {
  const { width, height, middle, unit } = RULER;
  const lines = h("g", {});
  const marks = h("g", {});
  const node = h("svg", { viewBox: `0 0 ${width} ${height}`, class: "pw-ruler", role: "img" },
    lines, marks);
  const x = (index) => ((index + 0.5) * width) / count;
  const y = (weight) => middle - weight * unit;
  const inside = (weight) => Math.abs(weight) < 1.24;

  node.show = ({ weights, restored, lines: levels }) => {
    lines.replaceChildren(...levels.filter(inside).map((level) => h("line", {
      x1: 0, x2: width, y1: y(level), y2: y(level), class: level === 0 ? "pw-zero" : null })));
    marks.replaceChildren(...weights.flatMap((weight, index) => (inside(weight) ? [
      h("circle", { cx: x(index), cy: y(restored[index]), r: 6, class: "pw-restored" }),
      h("circle", { cx: x(index), cy: y(weight), r: 8, class: "pw-true" }),
    ] : [h("line", { x1: x(index), x2: x(index), y1: middle, y2: 0, class: "pw-off" })])));
  };
  node.say = (text) => node.setAttribute("aria-label", text);
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const change = changer(model);
  const outlier = get("_outlier");
  const count = get("_grid")[`${get("levels")},${get("_times")[0]}`].weights.length;

  const size = colour(slider({
    id: `${prefix}-times`, name: "times", label: "Outlier, times the largest other weight",
    values: get("_times"), say: (n) => `${n} times`, onMove: (value) => change({ times: value }),
  }), get("_color"));
  const levels = choice({
    prefix, name: "levels", legend: "Levels", options: get("_choices"),
    onPick: (value) => change({ levels: value }),
  });
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const picture = colour(ruler(count, outlier), get("_color"));
  const cells = [...Array(count)].map(() => [h("td", {}), h("td", {}), h("td", {})]);
  const table = h("table", { class: "pw-table" },
    h("caption", {}, "The block, weight by weight"),
    h("thead", {}, h("tr", {}, ["", "weight", "code", "restored"].map((name) => (
      h("th", { scope: "col" }, name))))),
    h("tbody", {}, cells.map((row, index) => h("tr", { "data-weight": index },
      h("th", { scope: "row" }, index === outlier ? "outlier" : `${index + 1}`), row))));

  const draw = () => {
    const found = get("_grid")[`${get("levels")},${get("times")}`];
    size.show(get("times"));
    levels.show(get("levels"));
    setText(figure, formatShare(found.error));
    const rest = `error of the other ${count - 1} weights; they use ${found.used} `
      + `${found.used === 1 ? "level" : "levels"}.`;
    setText(sentence, rest);
    picture.show(found);
    picture.say(`Weights as rings, restored ones as dots, levels as lines. ${rest}`);
    cells.forEach(([weight, code, restored], index) => {
      setText(weight, found.weights[index].toFixed(2));
      setText(code, String(found.codes[index]));
      setText(restored, found.restored[index].toFixed(2));
    });
    return `${formatShare(found.error)} ${rest}`;
  };
  draw();

  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["change:times", "change:levels"];
  events.forEach((event) => model.on(event, redraw));
  el.append(widgetRoot("An outlier in a block of weights",
    h("div", { class: "pw-controls" }, h("div", { class: "pw-group" }, size)),
    h("div", { class: "pw-bar-tools" }, levels), headline, spoken, picture,
    h("details", {}, h("summary", {}, "All sixteen weights"),
      h("div", { class: "pw-scroll" }, table)),
    h("p", { class: "pw-note" }, "Rings: the weights. Dots: what is restored. Lines: the levels. "
      + "The outlier itself is far above the picture, at the dashed line; it is always restored exactly.")));
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
