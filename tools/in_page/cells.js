/* The cells of a page that can be edited and run: one Python for the page, in a worker (worker.js). */

import { Outputs } from "./outputs.js";
import { BASE, Python, STOPPED } from "./python.js";
import * as plain from "./text-box.js";

const IMPORTED = "peft-book-imported";  // work.js notes there which edits came in a file
const LONGEST = 100_000;  // characters of an edit that is kept; work.js takes ten times as many in one file

function button(parent, text, act) {
  const made = parent.appendChild(document.createElement("button"));
  made.type = "button";
  made.className = "btn btn-sm btn-outline-secondary";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

/** What this browser keeps under a key, by names: what is no such thing is as nothing. */
function stored(key) {
  const kept = JSON.parse(localStorage.getItem(key));
  return kept && typeof kept === "object" && !Array.isArray(kept) ? kept : {};
}

/** All notes of which edits came in files, by notebook. */
function marks() {
  try {
    return stored(IMPORTED);
  } catch {  // a browser that keeps nothing, or nonsense
    return {};
  }
}

/** A file's name as a word of the question: it ends no quotation, and breaks and turns no line. */
const named = (file) => String(file).replace(/[\p{C}\p{Z}"'`“”„‟‘’‚‛«»‹›]+/gu, " ").trim().slice(0, 100);

class Cell {
  constructor(page, element, known, number) {
    Object.assign(this, { page, element, known, number });
    this.code = element.querySelector(":scope > .cell_input, :scope > details");
    this.printed = element.querySelector(":scope > .cell_output");
    this.tools = element.querySelector(":scope > .in-page-tools");
    this.ran = null;  // the text with which this cell has run in the Python that is there
    this.file = undefined;  // of which file the editor's text is, whatever becomes of the notes of it
    this.checks = [];  // cells that check what is written in this one
  }

  get isOpen() {
    return Boolean(this.editor && !this.box.hidden);
  }

  /** The text that a run takes: the reader's while it is open, else the printed one. */
  get text() {
    return this.isOpen ? this.editor.text : this.known.source;
  }

  /** Whether it only checks an exercise: it changes nothing, but the hints count how often it has failed. */
  get isCheck() {
    return Boolean(this.known.check) && this.text === this.known.source;
  }

  makeTools() {
    if (this.status) return;
    this.tools ??= this.element.appendChild(Object.assign(document.createElement("div"),
      { className: "in-page-tools" }));
    const editButton = this.tools.querySelector(".in-page-edit");
    this.runButton = button(this.tools, "Run", () => this.page.run(this));
    this.checkButtons = this.checks.map((one) => button(this.tools, one.known.check, () => this.page.run(one, this)));
    this.stopButton = button(this.tools, "Stop", () => this.page.stop());
    this.backButton = button(this.tools, "", () => this.back());
    this.forgetButton = button(this.tools, "Forget my edit", () => this.forget());
    this.bar = this.tools.appendChild(document.createElement("progress"));
    this.bar.setAttribute("aria-label", "Loading Python");
    this.bar.hidden = true;
    this.status = this.tools.appendChild(document.createElement("span"));
    this.status.className = "in-page-status";
    this.status.setAttribute("role", "status");
    this.wayButton = button(this.tools, "", () => this.way.meet());
    this.wayButton.hidden = true;
    this.editButton = editButton;
    this.show();
  }

  makeEditor() {
    if (this.editor) return;
    const { Editor, HELP } = this.page.kit;
    this.box = document.createElement("div");
    this.box.className = "in-page-editor";
    this.box.hidden = true;
    const help = this.box.appendChild(document.createElement("p"));
    help.id = `in-page-help-${this.number}`;
    help.className = "in-page-note";
    help.textContent = HELP;
    const kept = this.page.kept(this);
    if (kept !== undefined) this.file = this.page.files.get(this.name);
    this.editor = new Editor(this.box, {
      text: kept ?? this.known.source, label: `Code of cell ${this.number}`, help: help.id,
      changed: () => this.changed(), run: () => this.page.run(this), above: () => this.page.above(this) });
    this.code.after(this.box);
  }

  open() {
    this.makeTools();
    this.makeEditor();
    this.box.hidden = false;
    this.code.hidden = true;
    this.editor.shown();
    this.show();
  }

  /** What a click on "Edit and run" does: the editor is there, and Python on its way. */
  edit() {
    this.open();
    this.editor.focus();
    this.page.warmUp(this);
  }

  /** What a click on "Check step 2" does, below the check itself. */
  check() {
    this.makeTools();
    return this.page.run(this);
  }

  changed() {
    const { text } = this.editor, before = this.fault;
    this.fault = this.page.keep(this, text);
    const stale = this.ran !== null && this.ran !== text;
    if (this.fault || before || stale) this.say(this.fault || (stale ? "Changed since it ran." : ""));
    this.show();
  }

  /** Run in the page's Python, the outputs below the cell `at`; resolves with whether what is below may run. */
  async execute(at = this) {
    const { text } = this, outputs = new Outputs(this.printed, this.known, this.page.isEdited(this));
    at.element.classList.add("in-page-running");
    try {
      at.outputs?.box.remove();
      at.outputs = outputs;
      at.element.append(outputs.box);
      const failure = await this.page.python.run(text, outputs);
      if (failure) outputs.fail(failure, at === this && this.isOpen && ((line) => this.editor.goTo(line)));
      if (this.ran !== text && !this.isCheck) this.page.outdate(this);
      this.ran = failure && !this.known.raises ? null : text;
      return this.ran !== null;
    } finally {
      at.element.classList.remove("in-page-running");
      outputs.finish();
      const made = outputs.box.childElementCount > 0;
      if (made) at.makeTools();
      if (this.printed && at === this) this.printed.hidden = !outputs.keepsPrinted && (made || this.isOpen);
      if (at.status) at.show();
    }
  }

  /** Before code of a file runs for the first time: whose. `strange` are such cells; `run` goes on. */
  ask(strange, run) {
    this.question?.remove();
    const box = this.question = document.createElement("div"), said = box.appendChild(document.createElement("p"));
    const numbers = strange.map(({ number }) => number), files = [...new Set(strange.map(({ file }) => named(file)))];
    said.id = `in-page-ask-${this.number}`;
    said.textContent = `The code of ${numbers.length > 1 ? "cells" : "cell"} ${numbers.join(", ")} came from the file `
      + `${files.map((file) => `“${file}”`).join(", ")}; it is not the book’s. Read it before you run it.`;
    box.className = "in-page-ask";
    box.tabIndex = -1;
    box.setAttribute("role", "group");
    box.setAttribute("aria-labelledby", said.id);
    const answer = (act) => {
      this.answered();
      act();
    };
    button(box, "I have read it: run", () => answer(() => {
      this.page.trust(strange);
      run();
    }));
    button(box, "Do not run", () => answer(() => this.say("Not run.")));
    box.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") answer(() => this.say("Not run."));
    });
    this.tools.before(box);
    box.focus();
  }

  /** The question is gone, and the keyboard where it came from. */
  answered() {
    this.question?.remove();
    this.question = null;
    if (this.isOpen) this.editor.focus();
  }

  back() {
    this.question?.remove();
    if (this.editor) this.box.hidden = true;
    if (this.code) this.code.hidden = false;
    if (this.printed) this.printed.hidden = false;
    this.outputs?.box.remove();
    this.outputs = null;
    this.say("");
    this.show();
    this.editButton?.focus();
  }

  forget() {
    this.page.trust([this]);
    this.page.keep(this, null);
    this.editor.text = this.known.source;
    this.back();
    this.say("Your edit is forgotten.");
  }

  /** Say something, perhaps about another cell, to which a button then leads. */
  say(text, other = null) {
    if (!this.status) return;
    if (this.status.textContent !== text) this.status.textContent = text;
    this.way = other === this ? null : other;
    this.wayButton.hidden = !this.way;
    this.wayButton.textContent = this.way ? `Go to cell ${this.way.number}` : "";
  }

  /** What a reader sees who comes here from another cell. */
  meet() {
    const place = this.outputs?.box ?? this.element;
    place.tabIndex = -1;
    place.focus({ preventScroll: true });
    place.scrollIntoView({ block: "center" });
  }

  /** Which buttons make sense now. The keyboard does not get lost with one that goes. */
  show() {
    const open = this.isOpen, runs = this.page.target === this, before = document.activeElement;
    if (this.editButton) this.editButton.hidden = open;
    this.runButton.hidden = !open || runs;
    this.stopButton.hidden = !runs;
    // What checks an exercise, or only defines something, has no result in print.
    this.backButton.textContent = this.printed ? "Back to the printed result"
      : open ? "Back to the printed code" : "Clear the result";
    this.backButton.hidden = runs || !(open || this.outputs?.box.childElementCount);
    this.forgetButton.hidden = runs || !open || this.page.kept(this) === undefined;
    for (const one of this.checkButtons) one.hidden = !open || runs;
    if (runs && before?.hidden && this.tools.contains(before)) {
      this.pressed = before;
      this.stopButton.focus({ preventScroll: true });
    } else if (!runs) {
      if ([document.body, this.stopButton].includes(before)) this.pressed?.focus({ preventScroll: true });
      this.pressed = null;
    }
  }
}

class Page {
  /** `kit` makes the cells' editors: the module editor.js or, where it does not load, text-box.js. */
  constructor(notebook, elements, known, kit) {
    this.kit = kit;
    this.key = `peft-book edits ${notebook}`;
    this.python = new Python(notebook.replace(/[^/]*$/, ""));
    this.edits = this.read();
    const names = new Map();
    this.cells = elements.map((element, index) => {
      const cell = new Cell(this, element, known[index], index + 1);
      // An edit belongs to the text that it changes: a new edition may have moved the cell.
      const count = (names.get(cell.known.source) ?? 0) + 1;
      names.set(cell.known.source, count);
      cell.name = `${count}\n${cell.known.source}`;
      return cell;
    });
    let work;  // where the reader writes; the checks from there to the next such cell look at it
    for (const cell of this.cells) {
      if (cell.known.source.includes("raise NotImplementedError")) work = cell;
      else if (cell.known.check) work?.checks.push(cell);
    }
    for (const cell of this.cells) if (cell.code && this.kept(cell) !== undefined) cell.open();
  }

  /** The edits that are kept, and with them, but later, of which files they are: see forget() in work.js. */
  read() {
    let edits = this.edits ?? {};
    try {
      edits = Object.fromEntries(Object.entries(stored(this.key)).filter(([, text]) => typeof text === "string"));
    } catch { /* a browser that keeps nothing, or nonsense */ }
    this.files = new Map(Object.entries(marks()[this.key] ?? {}));
    return edits;
  }

  kept(cell) {
    return this.edits[cell.name];
  }

  /** Keep the reader's text of a cell, or forget it; returns why it could not be kept, or "". */
  keep(cell, text) {
    if (text?.length > LONGEST) {  // to write it at each key would make the keys slow
      return `Too long to be kept (${LONGEST.toLocaleString("en")} characters are the most): copy it before you leave.`;
    }
    this.edits = this.read();  // another tab may have changed another cell
    if (text === null || text === cell.known.source) delete this.edits[cell.name];
    else this.edits[cell.name] = text;
    try {
      if (cell.file !== undefined) this.mark([cell], cell.file);  // another tab may have forgotten it
      if (Object.keys(this.edits).length) localStorage.setItem(this.key, JSON.stringify(this.edits));
      else localStorage.removeItem(this.key);
    } catch {
      return "This browser does not keep your edit: copy it before you leave.";
    }
    return "";
  }

  /** What a run of this cell takes from files that the reader has not let run. */
  strange(last) {
    return this.cells.slice(0, this.cells.indexOf(last) + 1)
      .filter((cell) => cell.file !== undefined && cell.text !== cell.known.source);
  }

  /** The reader has read these: they run like the reader's own. */
  trust(strange) {
    for (const cell of strange) cell.file = undefined;
    try {
      this.mark(strange);
    } catch { /* a browser that keeps nothing */ }
  }

  /** Note of which file these cells' edits are; of none without one. */
  mark(cells, file) {
    const all = marks(), files = new Map(Object.entries(all[this.key] ?? {}));
    for (const { name } of cells) file === undefined ? files.delete(name) : files.set(name, file);
    delete all[this.key];
    if (files.size) all[this.key] = Object.fromEntries(files);
    if (files.size || localStorage.getItem(IMPORTED)) localStorage.setItem(IMPORTED, JSON.stringify(all));
  }

  /** Start Python, and show at this cell how far it is. */
  async start(cell) {
    this.python.onLoading = (text) => cell.say(`${text} …`);
    cell.bar.hidden = false;
    try {
      await this.python.start();
    } finally {
      cell.bar.hidden = true;
    }
  }

  /** Python starts; the cell that asked for it says how far it is. */
  async warmUp(cell) {
    if (this.target || this.python.ready) return;
    cell.say("Loading Python …");
    try {
      await this.start(cell);
      if (!this.target) cell.say("Python is ready.");
    } catch (error) {
      if (!this.target) cell.say(`Python could not start: ${error.message}`);
    }
  }

  /**
   * Run a cell, before it those above it that have not run as they stand, after what stands above them; what
   * comes of it is told below `at`.
   */
  async run(cell, at = cell) {
    if (this.target) {
      at.say(`Cell ${this.target.number} is running: stop it first, or wait.`, this.target);
      return;
    }
    const strange = this.strange(cell);
    if (strange.length) {
      at.ask(strange, () => this.run(cell, at));
      return;
    }
    this.target = at;
    at.show();
    let ended = "", failed;
    try {
      await this.start(at);
      const before = this.cells.slice(0, this.cells.indexOf(cell)).filter((one) => !(cell.isCheck && one.isCheck));
      const first = before.findIndex((one) => one.ran !== one.text);
      const above = first < 0 ? [] : before.slice(first);
      for (const [index, one] of above.entries()) {
        at.say(`Running the cells above: ${index + 1} of ${above.length} …`);
        if (!await one.execute()) {
          failed = one;
          ended = one === at ? "Not checked, because this cell fails."
            : `Not run, because cell ${one.number} above fails.`;
          return;
        }
      }
      at.say("Running …");
      const began = performance.now();
      const fine = await cell.execute(at);
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      const verdict = cell.known.check && at.outputs.box.querySelector("strong")?.textContent;
      ended = fine ? `Done in ${seconds} s. ${verdict || ""}`.trim() : "It ended with an error.";
    } catch (error) {
      this.forgetRuns();
      ended = error === STOPPED ? "Stopped. The next run starts Python anew, and your text is kept."
        : `Python has broken down (${error.message}). The next run starts it anew.`;
    } finally {
      this.target = null;
      at.say(ended, failed);
      at.show();
    }
  }

  /** Whether this cell, or one that has run before it, is not as the book has it. */
  isEdited(cell) {
    return this.cells.slice(0, this.cells.indexOf(cell) + 1).some(({ text, known }) => text !== known.source);
  }

  /** The code that has run before a cell runs, as it stands. */
  above(cell) {
    return this.cells.slice(0, this.cells.indexOf(cell)).map(({ text }) => text).join("\n");
  }

  /** What has run below a cell has run with another one above it. */
  outdate(cell) {
    for (const one of this.cells.slice(this.cells.indexOf(cell) + 1)) one.ran = null;
  }

  forgetRuns() {
    for (const cell of this.cells) cell.ran = null;
  }

  stop() {
    this.python.stop();
  }
}

/** The page's cells in their order, each ready to be edited. */
export async function take(notebook) {
  const known = fetch(new URL(`cells/${notebook.replace(/ipynb$/, "json")}`, BASE)).then((answer) => answer.json());
  const kit = import("./editor.js").then(({ Editor, HELP }) => ({ Editor, HELP }),
    () => ({ Editor: plain.TextBox, HELP: plain.HELP }));
  return new Page(notebook, [...document.querySelectorAll("div.cell")], await known, await kit).cells;
}
