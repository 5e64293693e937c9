// What the speaking model answered: choose a task, a training and how the base model was asked; see
// both models' answers to the same questions, how many are right, and what was forgotten.

const SETTING = ["task", "method", "size", "lr", "seed"];

/** "0 \u2192 33 of 60"; a dash for what was not measured. */
const shown = (before, after, of) => `${before ?? "\u2013"} \u2192 ${after ?? "\u2013"} of ${of}`;
const nats = (value) => value.toFixed(2);

/** The run that fits best, and what each choice leaves open: an earlier choice binds a later. */
function chosenRun(runs, wanted) {
  let left = runs;
  const open = {};
  for (const name of SETTING) {
    open[name] = [...new Set(left.map((run) => run[name]))];
    const value = open[name].includes(wanted[name]) ? wanted[name] : open[name][0];
    left = left.filter((run) => run[name] === value);
  }
  return { run: left[0], open };
}

/** A drop-down list whose options depend on the choices before it; hidden where there is one. */
function narrowed({ prefix, name, label, onPick }) {
  const node = dropDown({ id: `${prefix}-${name}`, name, label, options: [], onPick });
  node.offer = (options) => {
    const values = options.map(([value]) => String(value)).join();
    if (node.dataset.values !== values) {
      node.dataset.values = values;
      node.select.replaceChildren(...options.map(([value, text]) =>
        h("option", { value }, text)));
    }
    node.hidden = options.length < 2;
  };
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const runs = get("_runs");
  const before = get("_before");
  const tasks = get("_tasks");
  const methods = get("_methods");
  const groups = get("_groups");

  const wanted = () => Object.fromEntries(SETTING.map((name) => [name, get(name)]));
  const change = (values) => {
    const { run } = chosenRun(runs, { ...wanted(), ...values });
    for (const name of SETTING) model.set(name, run[name]);
    model.save_changes();
  };

  const asked = dropDown({
    id: `${prefix}-before`, name: "before", label: "Before: the base model, asked with",
    options: [...new Map(before.map(({ method, label }) => [method, label]))],
    onPick: (value) => { model.set("before", value); model.save_changes(); },
  });
  const fields = Object.fromEntries([["task", "Task"],
    ["method", "After: trained with"], ["size", "Size"], ["lr", "Peak learning rate"],
    ["seed", "Seed"]].map(([name, label]) => [name, narrowed({
    prefix, name, label,
    onPick: (text) => change({
      [name]: ["task", "method"].includes(name) ? text : Number(text) }),
  })]));

  const countRows = groups.map(([name, title]) => {
    const found = ["exact", "form", "choice"].map((what) => h("td", { "data-what": what }));
    return { name, found, row: h("tr", { "data-group": name }, h("th", { scope: "row" }, title),
      found) };
  });
  const meaning = h("caption", {});
  const counts = h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" }, meaning,
    h("thead", {}, h("tr", {}, ["Answers, before \u2192 after", "Right", "Form", "Choice"]
      .map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, countRows.map(({ row }) => row))));
  const facts = h("dl", { class: "pw-facts" });

  const said = () => h("td", {}, h("span", { class: "pw-said" }));
  const body = h("tbody", {});
  let lines = [];
  let listed = null;

  /** The rows of a task's questions, if they are not those that stand there. */
  const list = (task, asked) => {
    if (listed === task) return;
    listed = task;
    lines = asked.map(({ words, answer }) => {
      const [was, now] = [said(), said()];
      return { was, now, row: h("tr", {}, h("th", { scope: "row" }, words),
        h("td", {}, h("span", { class: "pw-said" }, answer)), was, now) };
    });
    body.replaceChildren(...groups.flatMap(([name, title]) => [
      h("tr", { class: "pw-group-row" }, h("th", { scope: "colgroup", colspan: 4 }, title)),
      ...lines.filter((_, i) => asked[i].group === name).map(({ row }) => row)]));
  };
  const question = h("th", { scope: "col" });
  const answers = h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" },
    h("caption", {}, "The same twenty questions; right answers are ticked and marked"),
    h("thead", {}, h("tr", {}, question, ["Wanted", "Before", "After"]
      .map((text) => h("th", { scope: "col" }, text)))), body));
  const spoken = announcer();
  const root = widgetRoot("Answers of the speaking model, before and after",
    h("div", { class: "pw-controls" }, h("div", { class: "pw-group" }, fields.task, asked),
      h("div", { class: "pw-group" }, SETTING.slice(1).map((name) => fields[name]))),
    spoken, counts, facts, answers, h("p", { class: "pw-note" }, get("_note")));
  root.classList.add("pw-answers");

  const show = (cell, { said: text, right }) => {
    const node = cell.firstChild;
    node.classList.toggle("pw-right", right);
    node.replaceChildren(...(right ? [h("span", { class: "pw-unseen" }, "right: ")] : []),
      text || "(nothing)");
  };

  const draw = () => {
    const { run, open } = chosenRun(runs, wanted());
    const possible = before.filter(({ task }) => task === run.task);
    const base = possible.find(({ method }) => method === get("before")) ?? possible[0];
    const told = tasks[run.task];
    setText(meaning, `Right: ${told.right}. Form: ${told.form}. Choice: the right answer is `
      + "likelier than a wrong one.");
    setText(question, told.asked);
    list(run.task, base.answers);
    const { label, unit, color } = methods[run.method];
    colour(root, color);
    asked.show(base.method);
    const text = { task: (key) => tasks[key].label, method: (key) => methods[key].label,
      size: (value) => String(value), lr: (value) => String(value), seed: (value) => String(value) };
    for (const name of SETTING) {
      fields[name].offer(open[name].map((value) => [value, text[name](value)]));
      fields[name].show(String(run[name]));
    }
    for (const { name, found } of countRows) {
      const of = groups.find(([group]) => group === name)[2];
      found.forEach((cell) => setText(cell, shown(...[base, run].map(
        (row) => row[cell.dataset.what]?.[name]), of)));
    }
    facts.replaceChildren(...[
      ["Loss on everyday answers, before and after",
        `${nats(base.general)} \u2192 ${nats(run.general)} nats per token`],
      ["Loss on rows held back, after", `${run.validation.toFixed(3)} nats per token`],
      ["Trained parameters", formatCount(run.trainable)], ["Saved file", formatBytes(run.file_bytes)],
    ].map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
    lines.forEach(({ was, now }, i) => {
      show(was, base.answers[i]);
      show(now, run.answers[i]);
    });
    const sum = (row) => groups.reduce((all, [name]) => all + row.exact[name], 0);
    const all = groups.reduce((total, [, , of]) => total + of, 0);
    const what = unit ? `${label}, ${unit} ${run.size}` : label;
    return `${told.label}; ${what}, learning rate ${run.lr}: ${sum(run)} of ${all} right, `
      + `before ${sum(base)}; loss on everyday answers ${nats(run.general)}, before ${nats(base.general)}.`;
  };
  draw();
  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["before", ...SETTING].map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(root);
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
