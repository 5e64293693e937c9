/* A cell's editor: CodeMirror, in the colours of the book's printed code. It offers what text-box.js does. */

import {
  EditorState, EditorView, LanguageSupport, Prec, Transaction, autocompletion, bracketMatching, closeBrackets,
  closeBracketsKeymap, completionKeymap, defaultKeymap, history, historyKeymap, indentLess, indentMore,
  indentOnInput, indentUnit, keymap, pythonLanguage, syntaxHighlighting, tagHighlighter, tags as t,
} from "../../vendor/editor/codemirror.js";
import { completions } from "./completion.js";

export const HELP = "Ctrl+Enter runs, Ctrl+Space offers names. Tab indents; press Escape first to leave with Tab.";

const INDENT = 4;
const course = fetch(new URL("names.json", import.meta.url)).then((answer) => answer.json()).catch(() => ({}));

/** The classes that Pygments gives the printed code: so both have one set of colours, in light and dark. */
const COLOURS = tagHighlighter([
  { tag: [t.keyword, t.bool, t.null], class: "k" }, { tag: t.moduleKeyword, class: "kn" },
  { tag: t.operatorKeyword, class: "ow" }, { tag: t.comment, class: "c1" }, { tag: t.string, class: "s1" },
  { tag: t.escape, class: "se" }, { tag: t.number, class: "mi" }, { tag: [t.operator, t.modifier], class: "o" },
  { tag: t.function(t.definition(t.variableName)), class: "nf" },
  { tag: t.definition(t.className), class: "nc" }, { tag: t.meta, class: "nd" },
]);

const LINE = "1px solid var(--pst-color-border)";
const LOOKS = EditorView.theme({
  "&": { border: LINE, fontSize: "0.8125rem" },
  "&.cm-focused": { outline: "2px solid var(--pst-color-primary)" },
  ".cm-scroller": { fontFamily: "var(--pst-font-family-monospace)", lineHeight: "1.5" },
  ".cm-content": { caretColor: "var(--pst-color-text-base)", padding: "0.6rem 0" },
  ".cm-line": { padding: "0 0.6rem" },
  "&.cm-focused .cm-matchingBracket, &.cm-focused .cm-nonmatchingBracket": {
    background: "none", outline: "1px solid currentColor" },
  ".cm-tooltip": { background: "var(--pst-color-surface)", border: LINE, color: "var(--pst-color-text-base)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--pst-font-family-monospace)",
    maxWidth: "calc(100vw - 2rem)" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { background: "var(--pst-color-text-base)",
    color: "var(--pst-color-background)" },
});

/** Undo takes back an indentation by itself, and not with it what was typed just before. */
const STEPS = { joinToEvent: (change, adjacent) =>
  adjacent && !["input.indent", "delete.dedent"].some((kind) => change.isUserEvent(kind)) };

/** What the keys do. Escape, then Tab leaves, however slowly: to most readers Tab is the way out. */
function keys(run) {
  let last = "", escaped = false;
  const notes = EditorView.domEventObservers({ keydown: ({ key }) => {
    if (key === "Shift") return;
    escaped = last === "Escape";
    last = key;
  } });
  const indent = (view) => {
    if (escaped) return false;
    const { main } = view.state.selection;
    if (!main.empty) return indentMore(view);
    const column = main.head - view.state.doc.lineAt(main.head).from;
    view.dispatch(view.state.replaceSelection(" ".repeat(INDENT - column % INDENT)),
      { scrollIntoView: true, userEvent: "input.indent" });
    return true;
  };
  const runs = ["Ctrl-Enter", "Mod-Enter", "Shift-Enter"].map((key) => ({ key, run: () => run() || true }));
  return [notes, Prec.highest(keymap.of(runs)), keymap.of([
    { key: "Tab", run: indent, shift: (view) => !escaped && indentLess(view) },
    ...closeBracketsKeymap, ...completionKeymap, ...historyKeymap, ...defaultKeymap])];
}

export class Editor {
  /** `settings`: text, label, help (the id of what explains the keys), changed(), run(), above(). */
  constructor(parent, settings) {
    const { text, label, help, changed, run, above } = settings;
    this.view = new EditorView({ parent, doc: text, extensions: [
      new LanguageSupport(pythonLanguage), indentUnit.of(" ".repeat(INDENT)), EditorState.tabSize.of(INDENT),
      indentOnInput(), bracketMatching(), closeBrackets(), history(STEPS), syntaxHighlighting(COLOURS), LOOKS,
      // Nothing is chosen until an arrow key chooses it: Enter stays a new line to those who just type.
      autocompletion({ override: [completions(above, course)], icons: false, selectOnOpen: false }),
      keys(run), EditorView.editorAttributes.of({ class: "highlight" }),
      EditorView.contentAttributes.of({ "aria-label": label, "aria-describedby": help, tabindex: "0" }),
      EditorView.updateListener.of((update) => {
        if (update.transactions.some((one) => one.docChanged && !one.annotation(Transaction.remote))) changed();
      })] });
  }

  get text() {
    return this.view.state.sliceDoc();
  }

  set text(text) {
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: text },
      annotations: Transaction.remote.of(true) });
  }

  /** It is on the page again: nothing is to be measured by us. */
  shown() {
    this.view.requestMeasure();
  }

  focus() {
    this.view.focus();
  }

  goTo(number) {
    const { doc } = this.view.state, { from, to } = doc.line(Math.min(number, doc.lines));
    this.view.dispatch({ selection: { anchor: from, head: to }, scrollIntoView: true });
    this.view.focus();
  }
}
