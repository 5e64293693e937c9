// Two recorded settings on axes that never move. The reader first says which one ends lower; then
// the curves come. Every mean, deviation and distance is Python's.

const PAIR = { width: 320, height: 236, left: 42, right: 20, top: 10, bottom: 40 };
const SIDES = ["a", "b"];
const ROWS = [["final_test", "new names, last step"], ["best_test", "new names, best step"],
  ["final_base", "names it knew, last step"], ["best_base", "names it knew, best step"],
  ["own_test", "new names, best step, own rates"]];
const GUESSES = [["a", "A ends lower"], ["b", "B ends lower"], ["neither", "No difference that counts"]];

const oneDigit = (value) => value.toFixed(1).replace("-", "\u2212");
const capital = (word) => word[0].toUpperCase() + word.slice(1);

/** Axes that are drawn once, whatever is chosen later, and room for two curves. */
function axes([low, high], steps) {
  const { width, height, left, right, top, bottom } = PAIR;
  const [across, down] = [width - left - right, height - top - bottom];
  const last = steps[steps.length - 1];
  const x = (step) => (across * step) / last;
  const y = (loss) => (down * (high - loss)) / (high - low);
  const text = (string, at, kind) => h("text", { ...at, class: `pw-text pw-${kind}` }, string);
  const before = h("line", { x1: 0, x2: across, class: "pw-before" });
  const inside = h("g", {});
  const letters = h("g", {});
  const node = h("svg", { viewBox: `0 0 ${width} ${height}`, class: "pw-axes", role: "img" },
    ticks(low, high).flatMap((loss) => [
      h("line", { x1: left, x2: left + across, y1: top + y(loss), y2: top + y(loss), class: "pw-grid" }),
      text(loss.toFixed(1), { x: left - 7, y: top + y(loss) + 4 }, "end")]),
    ticks(0, last).map((step) => text(formatCount(step), { x: left + x(step), y: top + down + 18 }, "middle")),
    text("training steps", { x: left + across / 2, y: height - 4 }, "middle"),
    h("rect", { x: left, y: top, width: across, height: down, class: "pw-frame" }),
    // An inner picture cuts off what lies outside it: a prompt's first step, say.
    h("svg", { x: left, y: top, width: across + 8, height: down }, before, inside), letters);

  node.show = (start, curves) => {
    for (const end of ["y1", "y2"]) before.setAttribute(end, y(start));
    const ends = curves.map((curve) => curve && y(curve.values[curve.values.length - 1]));
    if (curves[0] && curves[1] && Math.abs(ends[0] - ends[1]) < 15) { // the letters, not the curves
      const [middle, first] = [(ends[0] + ends[1]) / 2, ends[0] <= ends[1] ? 0 : 1];
      ends[first] = middle - 7.5;
      ends[1 - first] = middle + 7.5;
    }
    const fresh = curves.map((curve, side) => inside.dataset[SIDES[side]] !== (curve?.name ?? ""));
    if (!fresh.includes(true)) return;
    inside.replaceChildren(...curves.flatMap((curve, side) => {
      if (!curve) return [];
      const path = curve.values.map((loss, i) => `${i ? "L" : "M"}${x(steps[i]).toFixed(1)},${y(loss).toFixed(1)}`);
      return [h("path", { d: path.join(""), class: `pw-line pw-${SIDES[side]} ${fresh[side] ? "pw-new" : ""}` }),
        h("circle", { cx: x(curve.best[0]), cy: y(curve.best[1]), r: 4.5 })].map((one) => colour(one, curve.color));
    }));
    curves.forEach((curve, side) => { inside.dataset[SIDES[side]] = curve?.name ?? ""; });
    letters.replaceChildren(...curves.map((curve, side) => (curve ? h("text", { x: left + across + 6,
      y: top + ends[side] + 5, class: "pw-letter" }, SIDES[side].toUpperCase()) : "")));
  };
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const change = changer(model);
  const settings = JSON.parse(get("_settings"));
  const errors = JSON.parse(get("_apart"));
  const before = get("_before");
  const seen = new Set(); // settings whose curves have been opened
  const nats = (value) => value.toFixed(3);

  const all = () => settings[get("target")];
  const place = (side) => all().findIndex(({ key }) => key === get(side));
  const chosen = () => SIDES.map((side) => all()[place(side)]);
  const tag = ({ key }) => `${get("target")} ${key}`;
  const open = () => get("guess") !== "" || chosen().every((one) => seen.has(tag(one)));
  /** By how many standard errors B lies above A; the list holds each two once, the earlier first. */
  const apart = (loss) => {
    const [i, j] = SIDES.map(place);
    if (i === j) return 0;
    const [first, second] = [Math.min(i, j), Math.max(i, j)];
    const at = first * all().length - (first * (first + 1)) / 2 + second - first - 1;
    return errors[get("target")][loss][at] * (i < j ? 1 : -1);
  };
  const deviations = (loss) => apart(loss) * get("_deviations");
  const lower = (loss) => {
    const distance = apart(loss);
    return Math.abs(distance) < get("_clear") ? "neither" : distance > 0 ? "a" : "b";
  };

  const target = choice({ prefix, name: "target", legend: "New names", onPick: (name) => change({ target: name, guess: "" }),
    options: Object.keys(settings).map((name) => [name, capital(name)]) });
  const runs = SIDES.map((side, i) => dropDown({ id: `${prefix}-${side}`, name: side,
    label: `Setting ${side.toUpperCase()}, ${["a solid line", "a broken line"][i]}`,
    options: all().map(({ key, label }) => [key, label]), onPick: (key) => change({ [side]: key, guess: "" }) }));
  const guesses = GUESSES.map(([value, text]) => h("button", { type: "button", class: "pw-button", "data-guess": value,
    onClick: () => { if (!open()) change({ guess: value }); } }, text));
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const steps = get("_steps");
  const pictures = get("_extents").map((extent) => axes(extent, steps));
  const heads = SIDES.map(() => h("th", { scope: "col" }));
  const cells = [["trained numbers"], ["best step"], ["learning rate"], ...ROWS.map(([, text]) => [text])]
    .map(([text]) => ({ text, row: [h("td", {}), h("td", {}), h("td", {})] }));
  const caption = h("caption", {});

  function verdict() {
    const [a, b] = chosen();
    if (a === b) return ["One setting", "stands on both sides. Choose another one."];
    if (!open()) return ["Guess first.", `After ${steps[steps.length - 1]} steps, which one ends lower on ${capital(get("target"))} names `
      + "that it has not seen? Your answer opens the curves."];
    const side = lower("final_test");
    const said = { a: "A ends lower", b: "B ends lower", neither: "No difference that counts" };
    const judged = get("guess") === "" ? "" : get("guess") === side ? "Right. " : "You said otherwise. ";
    const far = (loss) => `${oneDigit(Math.abs(deviations(loss)))} times the seeds' deviation`;
    const best = lower("best_test");
    return [said[side], `${judged}${nats(a.final_test[0])} is A's loss and ${nats(b.final_test[0])} B's, ${far("final_test")} `
      + `apart (${oneDigit(Math.abs(apart("final_test")))} standard errors; from ${get("_clear")} on it counts). At the best step it is `
      + `${nats(a.best_test[0])} and ${nats(b.best_test[0])}, ${far("best_test")}: ${best === "neither" ? "it does not count" : `${best.toUpperCase()} is lower`}.`];
  }

  function fill() {
    const pair = chosen();
    const values = [({ trainable }) => formatCount(trainable), ({ best_step: step }) => `${Math.round(step)}`,
      ({ lr }) => String(lr), ...ROWS.map(([key]) => (one) => `${nats(one[key][0])} ± ${nats(one[key][1])}`)];
    heads.forEach((head, i) => setText(head, `${SIDES[i].toUpperCase()}: ${pair[i].label}`));
    setText(caption, `Loss on the test part, nats per character: mean and standard deviation of ${pair[0].seeds} seeds. `
      + `What it knew stood at ${nats(before.base)} before. The last column is in deviations of the seeds.`);
    cells.forEach(({ row }, i) => {
      const given = i === 0 || i === 2; // known before any run
      pair.forEach((one, side) => setText(row[side], given || open() || seen.has(tag(one)) ? values[i](one) : "?"));
      const far = i < 3 ? "" : open() ? oneDigit(deviations(ROWS[i - 3][0])) : "?";
      setText(row[2], far);
    });
  }

  const draw = () => {
    const pair = chosen();
    const revealed = open();
    if (revealed) pair.forEach((one) => seen.add(tag(one)));
    target.show(get("target"));
    runs.forEach((run, i) => run.show(get(SIDES[i])));
    guesses.forEach((button) => {
      button.hidden = revealed && get("guess") === "";
      button.setAttribute("aria-pressed", String(button.dataset.guess === get("guess")));
    });
    const words = verdict();
    setText(figure, words[0]);
    setText(sentence, words[1]);
    const shown = pair.map((one) => seen.has(tag(one)));
    [["validation", before[get("target")]], ["base", before.base]].forEach(([curve, start], i) => {
      pictures[i].show(start, pair.map((one, side) => (shown[side] ? { name: tag(one), color: one.color,
        values: one[curve], best: [one.best_step, one.at_best[i]] } : null)));
      pictures[i].setAttribute("aria-label", `Loss over ${steps[steps.length - 1]} steps, ${nats(start)} before. ${
        pair.map((one, side) => (shown[side] ? `${SIDES[side].toUpperCase()} ends at ${nats(one[curve][steps.length - 1])}, `
          + `${nats(one.at_best[i])} at its best step.` : `${SIDES[side].toUpperCase()} is covered.`)).join(" ")}`);
    });
    fill();
    return words.join(". ");
  };

  const picture = (title, svg) => h("div", {}, h("p", {}, title), svg);
  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["target", "a", "b", "guess"].map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(widgetRoot("Two recorded settings on the same axes",
    h("div", { class: "pw-controls" }, runs), h("div", { class: "pw-row pw-guesses" }, target), headline, spoken,
    h("div", { class: "pw-row pw-guesses", role: "group", "aria-label": "Your guess" }, guesses),
    h("div", { class: "pw-axes-two" }, picture("Learned: loss on new names, held out", pictures[0]),
      picture("Forgotten: loss on names it knew", pictures[1])),
    h("details", { class: "pw-details" }, h("summary", {}, "The two in numbers"),
      h("div", { class: "pw-scroll" }, h("table", { class: "pw-table pw-pair-table" }, caption,
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), heads, h("th", { scope: "col" }, "B \u2212 A"))),
        h("tbody", {}, cells.map(({ text, row }) => h("tr", {}, h("th", { scope: "row" }, text), row)))))),
    h("p", { class: "pw-note" }, "The scales hold for every choice. Curves: the validation part, mean of the seeds, "
      + "and of what it knew one seed. The circle is the best step, the dotted line the loss before. All sizes of a "
      + "method share one learning rate here; the table's last row gives each its own, and LoRA's alpha is then 8.")));
  draw();
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
