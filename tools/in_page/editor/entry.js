/* The parts of CodeMirror that the pages' editor uses (../editor.js); `make vendor` makes them one file. */

export {
  CompletionContext, autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap,
} from "@codemirror/autocomplete";
export { defaultKeymap, history, historyKeymap, indentLess, indentMore } from "@codemirror/commands";
export { globalCompletion, localCompletionSource, pythonLanguage } from "@codemirror/lang-python";
export {
  LanguageSupport, bracketMatching, ensureSyntaxTree, indentOnInput, indentUnit, syntaxHighlighting,
} from "@codemirror/language";
export { EditorState, Prec, Transaction } from "@codemirror/state";
export { EditorView, keymap } from "@codemirror/view";
export { tagHighlighter, tags } from "@lezer/highlight";
