/* "Your work": what this browser keeps of a reader, on one page; out as one file, and in again.

   Kept are, by their keys in localStorage: the exercises passed (progress.js), the answers to questions
   (questions.js), the faults found (widgets/faults.js) and the edits of each notebook's cells. Nothing
   of it is sent anywhere. */

(() => {
  const KEYS = /^peft-book(-progress|-progress-taken|-questions|-faults| edits (?:[\w-]+\/)*[\w-]+\.ipynb)$/; // no "//host"
  const EDITS = "peft-book edits ";
  const IMPORTED = "peft-book-imported"; // {key of edits: {cell: file}}; in_page/cells.js asks before it runs these
  const FORM = "peft-book work 1"; // the file's first entry: what it is
  const LARGEST = 4_000_000; // characters of all that is kept after a file: browsers have room for 5
  const DAY = 24 * 60 * 60 * 1000;
  const AFTER = { shaky: 2, known: 14 }; // days until a question comes back: wrong or guessed, or sure and right

  function make(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  /** Text that can stand in an address: no half of a pair, of which encodeURIComponent makes an error. */
  const isText = (value) => typeof value === "string" && !/\p{Cs}/u.test(value);
  const isRecord = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

  /** Whether a question's answer is one, as questions.js notes it. */
  const isAnswer = ([name, one]) => isText(name) && isRecord(one) && typeof one.right === "boolean"
    && isText(one.page) && /^([\w-]+\/)*[\w-]+\.html$/.test(one.page)
    && isText(one.day) && Number.isFinite(Date.parse(one.day)) && (one.text === undefined || isText(one.text));

  /** All that is kept, by key; what is no record does not count. */
  function read() {
    const found = {};
    try {
      for (const key of Object.keys(localStorage).filter((name) => KEYS.test(name)).sort()) {
        try {
          const value = JSON.parse(localStorage.getItem(key));
          if (isRecord(value)) found[key] = value;
        } catch { /* not ours, or damaged: it stays where it is */ }
      }
    } catch { /* a browser that keeps nothing */ }
    return found;
  }

  /** Notes of which file a notebook's edits are. No file can say this: its key is none that is taken. */
  function mark(all, key, names, file) {
    const here = isRecord(all[key]) ? Object.entries(all[key]) : [];
    return { ...all, [key]: Object.fromEntries([...here, ...names.map((name) => [name, file])]) };
  }

  /** The record of which edits came in files. */
  function marks() {
    try {
      const all = JSON.parse(localStorage.getItem(IMPORTED));
      return isRecord(all) ? all : {};
    } catch { // damaged
      return {};
    }
  }

  /** The notebooks of this book, as its list of pages names them. */
  function notebooks(root) {
    const pages = [...document.querySelectorAll("nav.bd-links a[href$='.html']")].map(({ href }) => href);
    return new Set(pages.filter((page) => page.startsWith(root.href))
      .map((page) => page.slice(root.href.length).replace(/html$/, "ipynb")));
  }

  /** Keeps all values, by key, in their order; or, where one is not kept, what was there before. */
  function keep(values) {
    const before = Object.keys(values).map((key) => [key, localStorage.getItem(key)]);
    try {
      for (const [key, value] of Object.entries(values)) localStorage.setItem(key, JSON.stringify(value));
    } catch (error) {
      for (const [key] of before) localStorage.removeItem(key); // first room, then what fitted before
      for (const [key, text] of before) if (text !== null) localStorage.setItem(key, text);
      throw error;
    }
  }

  /** Adds what a file holds, all or nothing; what is here already stays. How many notes are new. */
  function take(work, file, root) {
    if (!isRecord(work) || work.form !== FORM) throw new Error("form");
    let count = 0;
    const here = read(), known = notebooks(root);
    const values = { [IMPORTED]: marks() }; // before the edits themselves: none is ever there unmarked
    for (const [key, value] of Object.entries(work)) {
      if (!KEYS.test(key) || !isRecord(value)) continue;
      const edits = key.startsWith(EDITS), answers = key === "peft-book-questions";
      if (edits && !known.has(key.slice(EDITS.length))) continue;
      const [theirs, ours] = [value, here[key] ?? {}].map((all) => (answers ? all.answers ?? {} : all));
      if (!isRecord(theirs) || !isRecord(ours)) continue;
      const fits = answers ? isAnswer : ([name, one]) => isText(name) && typeof one === "string";
      const fresh = Object.entries(theirs).filter((entry) => fits(entry) && !Object.hasOwn(ours, entry[0]));
      if (!fresh.length) continue;
      if (edits) values[IMPORTED] = mark(values[IMPORTED], key, fresh.map(([name]) => name), file);
      const joined = Object.fromEntries([...Object.entries(ours), ...fresh]);
      values[key] = answers ? { ...here[key], answers: joined } : joined;
      count += fresh.length;
    }
    if (JSON.stringify({ ...here, ...values }).length > LARGEST) throw new RangeError("too much together");
    if (!Object.keys(values[IMPORTED]).length) delete values[IMPORTED];
    if (count) keep(values);
    return count;
  }

  /** Empties what JupyterLite keeps of the notebooks; their tabs may be open. */
  async function forgetNotebooks() {
    const answer = (asked, done = "onsuccess") => new Promise((resolve, reject) => {
      asked[done] = () => resolve(asked.result);
      asked.onerror = asked.onabort = () => reject(asked.error);
    });
    for (const { name } of await indexedDB.databases()) {
      if (!name.startsWith("peft-book ")) continue;
      const database = await answer(indexedDB.open(name)), stores = [...database.objectStoreNames];
      try {
        if (!stores.length) continue;
        const work = database.transaction(stores, "readwrite");
        for (const store of stores) work.objectStore(store).clear();
        await answer(work, "oncomplete");
      } finally {
        database.close();
      }
    }
  }

  function questions(kept) {
    const answers = kept["peft-book-questions"]?.answers;
    return Object.entries(isRecord(answers) ? answers : {}).filter(isAnswer);
  }

  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

  /** Questions whose time has come, the oldest first, each a link to its place. */
  function review(answered, root) {
    const due = answered.filter(([, { right, sure, day }]) =>
      Date.now() - Date.parse(day) >= AFTER[right && sure ? "known" : "shaky"] * DAY)
      .sort(([, a], [, b]) => Date.parse(a.day) - Date.parse(b.day));
    if (!due.length) {
      return [make("p", {}, answered.length
        ? `None today. What was wrong or a guess comes back after ${AFTER.shaky} days, the rest after ${AFTER.known}.`
        : "You have answered none yet. They stand above the results that surprise, and at each section's end.")];
    }
    return [make("p", {}, "Each opens where it stands. Choose “Ask me again” there."),
      make("ul", {}, ...due.map(([name, { page, text, right, sure, day }]) => make("li", {},
        make("a", { href: new URL(`${page}#${encodeURIComponent(name)}`, root).href }, text ?? name),
        ` ${right ? "right" : "not right"}, ${sure ? "sure" : "a guess"}, ${day}`)))];
  }

  /** Whether being sure meant anything, over all pages. */
  function calibration(answered) {
    const rows = [["sure", true], ["a guess", false]].map(([word, sure]) => {
      const some = answered.map(([, one]) => one).filter((one) => one.sure === sure);
      const right = some.filter((one) => one.right).length;
      return make("tr", {}, make("th", { scope: "row" }, word), make("td", {}, some.length),
        make("td", {}, some.length ? `${right} (${Math.round(100 * right / some.length)} %)` : "–"));
    });
    const head = ["you said", "answers", "right"].map((word) => make("th", { scope: "col" }, word));
    return make("table", { class: "table" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  }

  /** First answers to "Find the fault": a case has its fault's name, and a number after it. */
  function cases(kept, root) {
    const answers = Object.entries(kept["peft-book-faults"] ?? {}).filter(([, said]) => typeof said === "string");
    const right = answers.filter(([name, said]) => name.replace(/-\d+$/, "") === said).length;
    const page = make("a", { href: new URL("book/find-the-fault.html", root).href }, "Find the fault");
    return make("p", {}, page, answers.length ? `: ${right} of ${plural(answers.length, "case")} right at the first try.`
      : " shows runs that went wrong, and asks why.");
  }

  function edits(kept, root) {
    const changed = Object.entries(kept).filter(([key]) => key.startsWith(EDITS));
    if (!changed.length) return make("p", {}, "None. “Edit and run” below a cell makes one.");
    return make("ul", {}, ...changed.map(([key, cells]) => {
      const notebook = key.slice(EDITS.length);
      return make("li", {}, make("a", { href: new URL(notebook.replace(/ipynb$/, "html"), root).href }, notebook),
        ` ${plural(Object.keys(cells).length, "cell")}`);
    }));
  }

  function start(place) {
    const root = new URL(document.documentElement.dataset.content_root ?? "./", location.href);
    const status = make("p", { role: "status" });
    const shown = make("div");
    const file = make("input", { type: "file", accept: ".json,application/json", hidden: "" });
    const button = (text, act) => {
      const made = make("button", { type: "button", class: "btn btn-sm btn-outline-secondary" }, text);
      made.addEventListener("click", act);
      return made;
    };

    function show(message = "") {
      const kept = read();
      const answered = questions(kept);
      shown.replaceChildren(make("h3", {}, "Questions to ask again"), ...review(answered, root),
        make("h3", {}, "How sure, how right"), calibration(answered),
        make("h3", {}, "Faults that you named"), cases(kept, root),
        make("h3", {}, "Code that you changed"), edits(kept, root));
      status.textContent = message;
    }

    function save() {
      const kept = read();
      const text = `${JSON.stringify({ form: FORM, ...kept }, null, 1)}\n`;
      const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      make("a", { href: url, download: "peft-book-work.json" }).click();
      URL.revokeObjectURL(url);
      status.textContent = JSON.stringify(kept).length <= LARGEST ? "" : "All of it is in the file, but that is more "
        + `than “Import” takes at once (${LARGEST / 1e6} million characters): keep what is here until you need it no more.`;
    }

    let asked = false;
    async function forget() {
      if (!asked) {
        asked = true;
        status.textContent = "This deletes your answers, edits and ticks in this browser, and all that you changed "
          + "in its notebooks. Press again to do it.";
        return;
      }
      asked = false;
      for (const key of Object.keys(localStorage)) if (KEYS.test(key)) localStorage.removeItem(key);
      localStorage.removeItem(IMPORTED); // after the edits: none is ever there unmarked
      show();
      try {
        await forgetNotebooks();
        show("All is forgotten.");
      } catch {
        show("All is forgotten but what you changed in notebooks: this browser does not open that.");
      }
    }

    file.addEventListener("change", async () => {
      try {
        if (file.files[0].size > 4 * LARGEST) throw new RangeError("too large"); // bytes, up to 4 for each
        const count = take(JSON.parse(await file.files[0].text()), file.files[0].name, root);
        show(count ? `${plural(count, "note")} added; what was here stays.`
          : "There is nothing new in that file.");
      } catch (error) {
        show(error.name === "QuotaExceededError" ? "This browser has no room for it. Nothing was added."
          : error instanceof RangeError ? "That is more than fits here: at most "
            + `${LARGEST / 1e6} million characters, with what is here already. Nothing was added.`
          : "That file is no exported work of this book.");
      }
      file.value = "";
    });
    place.replaceChildren(make("div", { class: "question-buttons" }, button("Export my work", save),
      button("Import", () => file.click()), button("Forget everything", forget), file), status, shown);
    show();
    window.addEventListener("storage", () => show());
  }

  document.addEventListener("DOMContentLoaded", () => {
    const place = document.getElementById("my-work");
    if (place) start(place);
  });
})();
