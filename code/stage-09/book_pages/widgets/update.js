// An update W' - W and its best approximation BA of each rank. Any cell of BA is a row of B times a
// column of A: as many products as the rank. Python took the update apart; here terms are added up.

const TERMS = { width: 320, height: 92, left: 2, speed: 90 }; // speed: ms a rank

const signed = (value) => value.toFixed(4).replace("-", "\u2212");
const factor = (value) => (value < 0 ? `(${signed(value)})` : signed(value));

/** A matrix as colours on a canvas, with a frame that can be laid around some of its cells. */
function heat(rows, columns, caption, onPoint) {
  const canvas = h("canvas", { width: columns, height: rows, role: "img" });
  const mark = h("span", { class: "pw-mark", "aria-hidden": "true" });
  const words = h("figcaption", {}, caption);
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (part, count) => Math.min(count, Math.max(1, Math.floor(part * count) + 1));
    onPoint(at((event.clientY - box.top) / box.height, rows),
      at((event.clientX - box.left) / box.width, columns));
  };
  const node = h("figure", { class: onPoint ? "pw-heat pw-touch" : "pw-heat" }, words,
    h("div", onPoint ? { onPointermove: point, onPointerdown: point } : {}, canvas, mark));

  /** Opacity is size, up to a limit; null leaves a cell empty. */
  node.paint = (at, limit) => {
    const ink = canvas.getContext("2d");
    const { color, caretColor } = getComputedStyle(canvas);
    ink.clearRect(0, 0, columns, rows);
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const value = at(row, column);
        if (value === null) continue;
        ink.globalAlpha = Math.min(1, Math.abs(value) / limit);
        ink.fillStyle = value > 0 ? color : caretColor;
        ink.fillRect(column, row, 1, 1);
      }
    }
  };
  /** Cells from (row, column) on, counted from 0. */
  node.frame = (row, column, height, width) => {
    Object.assign(mark.style, { top: `${(100 * row) / rows}%`, left: `${(100 * column) / columns}%`,
      height: `${(100 * height) / rows}%`, width: `${(100 * width) / columns}%` });
  };
  node.say = (text) => { setText(words, text); canvas.setAttribute("aria-label", text); };
  return node;
}

/** Bars, one a term; those of the first `rank` terms are coloured. With a line of their sums. */
function bars(count) {
  const { width, height } = TERMS;
  const rects = Array.from({ length: count }, () => h("rect", {}));
  const zero = h("line", { x1: 0, x2: width });
  const goal = h("line", { x1: 0, x2: width, class: "pw-goal" });
  const line = h("polyline", {});
  const node = h("svg", { viewBox: `0 0 ${width} ${height}`, class: "pw-terms", role: "img" },
    rects, zero, goal, line);
  const x = (index) => (index * width) / count;

  /** Heights, how many are kept, and where there is something to reach, the sum of all. */
  node.show = (values, rank, sums = null) => {
    const seen = sums ? [0, ...values, ...sums] : [0, ...values];
    const low = Math.min(...seen);
    const high = Math.max(...seen);
    const y = (value) => 2 + ((height - 4) * (high - value)) / (high - low || 1);
    rects.forEach((rect, index) => {
      const value = values[index];
      const kind = value > 0 ? "pw-plus" : "pw-minus";
      const place = { x: x(index) + 0.5, width: width / count - 1, y: y(Math.max(0, value)),
        height: Math.abs(y(value) - y(0)),
        class: index >= rank ? "pw-out" : `pw-in ${sums ? kind : ""}` };
      Object.entries(place).forEach(([name, to]) => rect.setAttribute(name, to));
    });
    const flat = (where, value) => ["y1", "y2"].forEach((name) => where.setAttribute(name, y(value)));
    flat(zero, 0);
    if (!sums) { goal.remove(); line.remove(); return; }
    flat(goal, sums[count - 1]);
    line.setAttribute("points", sums.slice(0, rank).map((sum, index) => (
      `${x(index)},${y(sum)} ${x(index + 1)},${y(sum)}`)).join(" "));
  };
  node.say = (text) => node.setAttribute("aria-label", text);
  return node;
}

/** A button that lets the rank grow; where motion is unwanted, by one for each press. */
function player(rank, last, onRank) {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const button = h("button", { type: "button", class: "pw-button", "data-name": "play" });
  let timer = null;
  const label = () => setText(button, timer ? "Pause" : still.matches ? "One rank more" : "Play");
  const next = () => onRank((rank() % last) + 1);
  button.stop = () => { clearInterval(timer); timer = null; label(); };
  button.addEventListener("click", () => {
    if (timer) { button.stop(); return; }
    next();
    if (still.matches) return;
    timer = setInterval(() => (rank() === last ? button.stop() : next()), TERMS.speed);
    label();
  });
  still.addEventListener("change", button.stop);
  button.leave = () => { button.stop(); still.removeEventListener("change", button.stop); };
  label();
  return button;
}

/** Calls back when colours are known or may have changed. Returns how to stop. */
function whenRecoloured(el, redraw) {
  const shown = new ResizeObserver(redraw); // at first the widget is not yet in the page
  shown.observe(el);
  const watch = new MutationObserver(redraw);
  [document.documentElement, document.body].forEach((node) => watch.observe(node, {
    attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light"] }));
  const queries = ["(prefers-color-scheme: dark)", "print"].map((query) => matchMedia(query));
  queries.forEach((query) => query.addEventListener("change", redraw));
  return () => {
    watch.disconnect();
    shown.disconnect();
    queries.forEach((query) => query.removeEventListener("change", redraw));
  };
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const change = changer(model);
  const numbers = (name, unit = 1) => get(name).split(" ").map((text) => Number(text) * unit);
  const [out, width] = get("_shape");
  const last = Math.min(out, width);
  const [b, a] = [numbers("_b", get("_unit")), numbers("_a", get("_unit"))];
  const [sigma, missing] = [numbers("_sigma"), numbers("_missing")];
  const term = (row, column, k) => b[row * last + k] * a[k * width + column];
  const cell = (row, column, rank) => {
    let sum = 0;
    for (let k = 0; k < rank; k += 1) sum += term(row, column, k);
    return sum;
  };
  const limit = (values) => ( // 2.5 times the root mean square is the strongest colour
    2.5 * Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length));
  const strongest = limit(Array.from({ length: out * width }, (_, index) => (
    cell(Math.floor(index / width), index % width, last))));

  const counted = (length) => Array.from({ length }, (_, index) => index + 1);
  const control = (name, label, length, say) => colour(slider({ id: `${prefix}-${name}`, name, label,
    values: counted(length), say, onMove: (value) => { play.stop(); change({ [name]: value }); },
  }), get("_color"));
  const play = player(() => get("rank"), last, (rank) => change({ rank }));
  const rank = control("rank", "Rank r", last, (n) => `rank ${n}`);
  const row = control("row", "Row of B", out, (n) => `row ${n}`);
  const column = control("column", "Column of A", width, (n) => `column ${n}`);
  const pick = (row, column) => {
    if (row !== get("row") || column !== get("column")) change({ row, column });
  };
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const whole = heat(out, width, "", pick);
  const product = heat(out, width, "", pick);
  const left = heat(out, last, "");
  const above = heat(last, width, "");
  const spectrum = colour(bars(last), get("_color"));
  const terms = bars(last);
  const sum = h("p", { class: "pw-sum" });
  const cells = counted(last).map(() => counted(5).map(() => h("td", {})));
  const table = h("table", { class: "pw-table pw-products" },
    h("caption", {}, "The cell, product by product"),
    h("thead", {}, h("tr", {}, ["r", "singular value", "in B", "in A", "product", "sum so far"]
      .map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, cells.map((found, k) => h("tr", {}, h("th", { scope: "row" }, `${k + 1}`), found))));

  let painted = null; // the rank in the pictures
  const paint = (kept) => {
    if (painted === null) whole.paint((i, j) => cell(i, j, last), strongest);
    product.paint((i, j) => cell(i, j, kept), strongest);
    left.paint((i, k) => (last - k <= kept ? b[i * last + last - 1 - k] : null), limit(b));
    above.paint((k, j) => (last - k <= kept ? a[(last - 1 - k) * width + j] : null), limit(a));
    painted = kept;
  };
  const draw = () => {
    const [kept, i, j] = [get("rank"), get("row") - 1, get("column") - 1];
    rank.show(kept);
    row.show(i + 1);
    column.show(j + 1);
    if (painted !== kept) paint(kept);
    const share = formatShare(missing[kept - 1]);
    const rest = `of the update is missing at rank ${kept}; A and B hold `
      + `${formatCount(kept * (out + width))} numbers, the update ${formatCount(out * width)}.`;
    setText(figure, share);
    setText(sentence, rest);
    whole.say(`The update, ${out} \u00d7 ${width}`);
    product.say(`BA at rank ${kept}`);
    left.say(`B, ${out} \u00d7 ${kept}`);
    above.say(`A, ${kept} \u00d7 ${width}`);
    left.frame(i, last - kept, 1, kept);
    above.frame(last - kept, j, kept, 1);
    [whole, product].forEach((one) => one.frame(i, j, 1, 1));

    const products = counted(last).map((k) => term(i, j, k - 1));
    const sums = products.map((_, k) => cell(i, j, k + 1));
    spectrum.show(sigma, kept);
    spectrum.say(`Singular values from ${sigma[0].toFixed(3)} down to ${sigma[last - 1].toFixed(3)}; `
      + `the first ${kept} are kept.`);
    terms.show(products, kept, sums);
    const spelt = products.slice(0, Math.min(kept, 2)).map((_, k) => (
      `${factor(b[i * last + k])}\u00a0\u00b7\u00a0${factor(a[k * width + j])}`)).join(" + ");
    const answer = `Row ${i + 1} of B times column ${j + 1} of A: ${spelt}${kept > 2 ? " + \u2026" : ""} `
      + `= ${signed(sums[kept - 1])}, ${kept} ${kept === 1 ? "product" : "products"}. `
      + `The update has ${signed(sums[last - 1])}.`;
    setText(sum, answer);
    terms.say(answer);
    cells.forEach((found, k) => [sigma[k].toFixed(3), signed(b[i * last + k]),
      signed(a[k * width + j]), signed(products[k]), signed(sums[k])]
      .forEach((text, at) => setText(found[at], text)));
    return `${share} ${rest} ${answer}`;
  };

  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["change:rank", "change:row", "change:column"];
  events.forEach((event) => model.on(event, redraw));
  el.append(widgetRoot("A real update, rank by rank",
    h("div", { class: "pw-controls pw-drag" }, rank, play), headline, spoken,
    h("div", { class: "pw-parts" }, h("div", { class: "pw-factors" }, whole, above, left, product),
      h("div", {}, h("p", { class: "pw-axis-title" }, "Singular values: what each rank adds"),
        spectrum, h("div", { class: "pw-controls pw-pair" }, row, column),
        h("p", { class: "pw-axis-title" },
          "The marked cell: its products (bars), their sum (line), the update's entry (dashed)"),
        terms, sum)),
    h("details", { class: "pw-details" }, h("summary", {}, "All products of this cell"),
      h("div", { class: "pw-scroll" }, table)),
    h("p", { class: "pw-note" }, "Point at BA or at the update, or move row and column. Red is "
      + "positive, blue negative. The scale s is 1; B holds the singular values.")));
  draw();
  const rest = whenRecoloured(el, oncePerFrame(() => { painted = null; draw(); }));
  return () => {
    events.forEach((event) => model.off(event, redraw));
    play.leave();
    rest();
  };
}

export default { render };
