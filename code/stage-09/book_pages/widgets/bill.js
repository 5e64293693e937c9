// A card that fills up with what training holds: weights, their copy, gradients, Adam's averages.
// Python has made every bill; here the first items of one are stacked beside the card's end.

const FILL = { height: 104, top: 26, bar: 48, side: 2, wait: 900 };

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const set = changer(model);
  const bills = JSON.parse(get("_bills"));
  const items = () => bills[get("model")][get("way")];
  const count = () => Math.min(get("shown"), items().length);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = null;

  const stop = () => { clearInterval(timer); timer = null; setText(play, still.matches ? "Add the next item" : "Fill the card"); };
  const next = () => set({ shown: count() === items().length ? 1 : count() + 1 });
  const play = h("button", { type: "button", class: "pw-button", "data-name": "play", onClick: () => {
    if (timer) { stop(); return; }
    next();
    if (still.matches) return;
    timer = setInterval(() => (count() === items().length ? stop() : next()), FILL.wait);
    setText(play, "Pause");
  } });
  const pick = (name) => (value) => { stop(); set({ [name]: value, ...(name === "card" ? {} : { shown: items().length }) }); };
  const which = dropDown({ id: `${prefix}-model`, name: "model", label: "Model",
    options: get("_models").map((name) => [name, name]), onPick: pick("model") });
  const way = choice({ prefix, name: "way", legend: "How",
    options: Object.keys(bills[get("model")]).map((name) => [name, name]), onPick: pick("way") });
  const card = choice({ prefix, name: "card", legend: "A card of, GB",
    options: get("_cards").map((size) => [size, size]), onPick: pick("card") });
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const picture = h("svg", { class: "pw-fill", role: "img" });
  const legend = h("ul", { class: "pw-parts-of" });

  const paint = (limit, total) => {
    const width = Math.max(260, el.clientWidth - 48);
    picture.setAttribute("viewBox", `0 0 ${width} ${FILL.height}`);
    const x = (bytes) => FILL.side + ((width - 2 * FILL.side) * bytes) / (1.04 * Math.max(limit, total));
    let from = 0;
    const box = (start, end, kind) => h("rect", { x: x(start), y: FILL.top, width: Math.max(0, x(end) - x(start)),
      height: FILL.bar, class: kind });
    const drawn = items().slice(0, count()).map(([, color, bytes]) => {
      const rect = colour(box(from, from + bytes, "pw-item"), color);
      from += bytes;
      return rect;
    });
    const end = h("text", { x: Math.min(x(limit), width - 4), y: 16, "text-anchor":
      x(limit) > width / 2 ? "end" : "start" }, `the card ends here: ${get("card")}\u00a0GB`);
    picture.replaceChildren(...drawn, from > limit ? box(limit, from, "pw-over") : "", box(0, limit, "pw-card"), end,
      h("text", { x: FILL.side, y: FILL.top + FILL.bar + 20 }, `${formatBytes(from)} so far`));
  };

  const draw = () => {
    const now = items();
    const limit = Number(get("card")) * 1e9;
    const total = now.reduce((sum, [, , bytes]) => sum + bytes, 0);
    const held = now.slice(0, count()).reduce((sum, [, , bytes]) => sum + bytes, 0);
    which.show(get("model"));
    way.show(get("way"));
    card.show(get("card"));
    paint(limit, total);
    let sum = 0;
    const broke = now.find(([, , bytes]) => { sum += bytes; return sum > limit; });
    setText(figure, formatBytes(held));
    const rest = count() < now.length ? `so far. Next: ${now[count()][0]}.`
      : broke ? `in all. A card of ${get("card")} GB is full at ${broke[0]}.`
        : `in all. ${formatBytes(limit - total)} of the card are left for activations and the rest.`;
    setText(sentence, rest);
    legend.replaceChildren(...now.map(([name, color, bytes], index) => colour(h("li",
      { "aria-hidden": index < count() ? null : "true" }, h("i", {}), `${name}: ${formatBytes(bytes)}`), color)));
    picture.setAttribute("aria-label", `${figure.textContent} ${rest}`);
    return `${figure.textContent} ${rest}`;
  };

  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["model", "way", "card", "shown"].map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(widgetRoot("The memory bill beside a card",
    h("div", { class: "pw-controls pw-pair" }, which, card), h("div", { class: "pw-row" }, way, play),
    headline, spoken, picture, legend,
    h("p", { class: "pw-note" }, "Model states only: activations come on top. Full fine-tuning in mixed precision "
      + "(16 bytes for each weight), LoRA of rank 8 on queries and values with a base in 16 bits, QLoRA with one in 4.")));
  stop();
  const resized = new ResizeObserver(redraw);
  resized.observe(el);
  draw();
  return () => {
    events.forEach((event) => model.off(event, redraw));
    stop();
    resized.disconnect();
  };
}

export default { render };
