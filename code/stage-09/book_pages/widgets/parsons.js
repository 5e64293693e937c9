// A Parsons problem: take lines, put them in order, and hear of the first that is not right. Which
// orders are right follows from what each line makes and reads; Python has worked that out.

/** What is said of lines taken in this order: { at, text } with the first fault's place, or none. */
function judged({ right, replies, needs, lines }, order) {
  for (const [at, index] of order.entries()) {
    if (index >= right) return { at, text: `Not this one. The exercise's check says: ${replies[index - right]}` };
    const missing = needs.find(([earlier, later]) => later === index && !order.slice(0, at).includes(earlier));
    if (missing && !missing[2]) return { at, text: "Too early: the method ends here, and lines are missing above." };
    if (missing) {
      return { at, text: `Too early: it uses ${missing[2]}, and a line that makes or checks ${missing[2]} `
        + "does not stand above it." };
    }
  }
  const rest = right - order.length;
  if (!order.length) return { text: `Take lines from the others: ${right} of the ${lines.length} belong here.` };
  if (rest) return { text: `Right so far. ${rest} ${rest === 1 ? "line is" : "lines are"} missing.` };
  return { done: true, text: "Right, and so is every order in which each line finds what it needs." };
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const puzzles = get("_puzzles");
  const order = () => get("orders")[get("puzzle")];
  /** Sets what is taken; the focus goes on, as the line that had it may be elsewhere now. */
  const put = (taken, focus) => {
    model.set("orders", get("orders").map((old, i) => (i === get("puzzle") ? taken : old)));
    model.save_changes();
    wanted = focus;
  };
  let wanted = null;

  const which = choice({ prefix, name: "puzzle", legend: "Which method?",
    options: puzzles.map(({ method }, i) => [String(i), method.split(".").pop()]),
    onPick: (value) => { model.set("puzzle", Number(value)); model.save_changes(); } });
  const pool = h("ol", { "aria-labelledby": `${prefix}-pool` });
  const taken = h("ol", { "aria-labelledby": `${prefix}-yours` });
  const head = h("pre", { class: "pw-head" });
  const reply = h("div", { class: "pw-reply", role: "status" });
  const check = h("button", { type: "button", class: "pw-button", "data-name": "check",
    onClick: () => tell() }, "Check the order");
  const again = h("button", { type: "button", class: "pw-button", "data-name": "again",
    onClick: () => put([], null) }, "Start again");

  const act = (text, label, name, index, onClick, disabled = false) => h("button", {
    type: "button", class: "pw-button", "aria-label": label, "data-name": name,
    "data-line": index, disabled, onClick }, text);

  function line(index, tools) {
    return h("li", { "data-line": index },
      h("pre", {}, puzzles[get("puzzle")].lines[index]), h("span", {}, tools));
  }

  function moved(at, to) {
    const now = [...order()];
    const [index] = now.splice(at, 1);
    now.splice(to, 0, index);
    put(now, [index, to < at ? "up" : "down"]);
  }

  function draw() {
    const { pool: all, head: def } = puzzles[get("puzzle")];
    const now = order();
    which.show(String(get("puzzle")));
    setText(head, def);
    pool.replaceChildren(...all.filter((index) => !now.includes(index)).map((index) =>
      line(index, [act("Take", `Take: ${puzzles[get("puzzle")].lines[index]}`, "take", index,
        () => put([...now, index], [index, "up"]))])));
    taken.replaceChildren(...now.map((index, at) => line(index, [
      act("↑", `Line ${at + 1} up`, "up", index, () => moved(at, at - 1), at === 0),
      act("↓", `Line ${at + 1} down`, "down", index, () => moved(at, at + 1), at === now.length - 1),
      act("×", `Put line ${at + 1} back`, "back", index,
        () => put(now.filter((one) => one !== index), [index, "take"]))])));
    reply.replaceChildren();
    check.disabled = again.disabled = !now.length;
    if (!wanted) return;
    const buttons = [...root.querySelectorAll(`button[data-line="${wanted[0]}"]:not(:disabled)`)];
    (buttons.find(({ dataset }) => dataset.name === wanted[1]) ?? buttons[0])?.focus();
    wanted = null;
  }

  function tell() {
    const { at, text, done } = judged(puzzles[get("puzzle")], order());
    [...taken.children].forEach((item, i) => item.classList.toggle("pw-wrong", i === at));
    reply.replaceChildren(h("p", {}, h("b", {}, at === undefined ? "" : `Line ${at + 1}. `), text),
      done ? h("p", {}, "Now write it yourself, with nothing to copy from, and let the exercise "
        + "check it.") : "");
  }

  const root = widgetRoot("Put the lines in order", which,
    h("div", { class: "pw-lines" },
      h("div", {}, h("p", { id: `${prefix}-pool`, class: "pw-title" },
        "Lines to take, some of them wrong"), pool),
      h("div", {}, h("p", { id: `${prefix}-yours`, class: "pw-title" }, "Your method"), head, taken,
        h("div", { class: "pw-row" }, check, again), reply)));
  el.append(root);
  draw();
  const redraw = oncePerFrame(draw);
  const events = ["change:puzzle", "change:orders"];
  events.forEach((event) => model.on(event, redraw));
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
