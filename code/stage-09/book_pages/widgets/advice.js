// The guide of section 9.5 as questions. Each answer leaves out what it excludes, and shows on what
// that rests: the rows, the claims and the counts are Python's.

const MARKS = { left: "\u2713", behind: "\u2212", out: "\u2717" };
const WORDS = { left: "possible:", behind: "possible, but:", out: "left out:" };

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const change = changer(model);
  const rows = JSON.parse(get("_rows"));
  const questions = get("_questions");
  const built = /\.html$/.test(location.pathname); // JupyterLab has no such pages

  /** Text with its links; in JupyterLab their words alone. */
  const line = (pieces) => pieces.map((piece) => (typeof piece === "string" ? piece : built
    ? h("a", { href: piece[1].replace(/\.(ipynb|md)(?=#|$)/, ".html") }, piece[0]) : piece[0]));
  const row = (question, index) => rows[questions[question][1][index]?.[1]];
  const answered = () => get("answers").flatMap((index, question) => (index < 0 ? []
    : [{ key: `${question}-${index}`, answer: questions[question][1][index][0], row: row(question, index) }]));

  const asked = questions.map(([question, answers], i) => dropDown({
    id: `${prefix}-${i}`, name: `question-${i}`, label: question,
    options: [["-1", "not answered"], ...answers.map(([answer], place) => [String(place), answer])],
    onPick: (place) => change({ answers: get("answers").map((old, k) => (k === i ? Number(place) : old)) }),
  }));
  const again = h("button", { type: "button", class: "pw-button pw-slim", "data-name": "again",
    onClick: () => change({ answers: questions.map(() => -1) }) }, "Start again");
  const { headline, figure, sentence } = largeFigure();
  const spoken = announcer();
  const options = get("_options").map(([key, name, color]) => {
    const [mark, heard, why] = [h("i", { "aria-hidden": "true" }), h("span", { class: "pw-unseen" }), h("span", {})];
    return { key, name, mark, heard, why, node: colour(h("li", {}, mark, heard, " ", h("b", {}, name), why), color) };
  });
  const grounds = h("div", {});

  const folds = new Map(); // made once, so that what a reader has opened stays open
  const ground = ({ answer, row: found }) => {
    const told = found ? [
      h("p", {}, "Because: ", line(found.because), "."),
      found.measured.length ? [h("p", {}, "Measured or counted in this book:"),
        h("ul", {}, found.measured.map((words) => h("li", {}, words)))]
        : h("p", {}, "No run of this book stands behind this, only what the links show."),
      h("p", {}, "Evidence: ", line(found.evidence), "."),
    ].flat() : [h("p", {}, "No method is left out, and none came behind.")];
    return h("details", { class: "pw-ground" },
      h("summary", {}, `${answer}: `, found ? ["consider ", ...line(found.consider)] : "this narrows nothing down"), told);
  };
  const folded = (one) => {
    if (!folds.has(one.key)) {
      for (const other of folds.values()) other.open = false;
      folds.set(one.key, ground(one));
      folds.get(one.key).open = true;
    }
    return folds.get(one.key);
  };

  const draw = () => {
    const given = answered();
    const why = (key, kind) => [...new Set(given.map(({ row: found }) => found?.[kind][key]).filter(Boolean))];
    get("answers").forEach((place, i) => asked[i].show(String(place)));
    const standing = options.map(({ key, mark, heard, why: reason, node }) => {
      const [out, behind] = [why(key, "out"), why(key, "behind")];
      const kind = out.length ? "out" : behind.length ? "behind" : "left";
      setText(mark, MARKS[kind]);
      setText(heard, WORDS[kind]);
      setText(reason, kind === "left" ? "" : ` ${(out.length ? out : behind).join("; ")}`);
      node.className = { out: "pw-gone", behind: "pw-behind", left: "" }[kind];
      return kind;
    });
    const named = (wanted) => options.filter((_, i) => standing[i] === wanted).map(({ name }) => name);
    const [left, behind] = [named("left"), named("behind")];
    setText(figure, `${left.length + behind.length} of ${options.length}`);
    const rest = !given.length ? "are possible. Answer what you know, and leave the rest."
      : left.length + behind.length === 0 ? "are left: some of your answers exclude each other. Change one, and see which."
        : `are left${left.length ? `: ${left.join(", ")}` : ""}.${behind.length
          ? ` In runs of ours ${behind.join(", ")} did less well, which is no law.` : ""}`;
    setText(sentence, rest);
    grounds.replaceChildren(...given.map(folded));
    return `${figure.textContent} ${rest}`;
  };

  const redraw = oncePerFrame(() => spoken.say(draw()));
  model.on("change:answers", redraw);
  el.append(widgetRoot("Which method? The guide as questions",
    h("div", { class: "pw-asked" }, asked), h("div", { class: "pw-row" }, again), headline, spoken,
    h("ul", { class: "pw-options" }, options.map(({ node }) => node)), grounds,
    h("p", { class: "pw-note" }, "Crossed out is what arithmetic or algebra excludes. A minus says that it came "
      + "behind in a comparison of this book, on its small model.", built ? [" The guide's table has more situations: ",
      h("a", { href: "#a-guide-with-its-evidence" }, "a guide, with its evidence"), "."] : null)));
  draw();
  return () => model.off("change:answers", redraw);
}

export default { render };
