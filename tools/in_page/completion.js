/* Which names a cell's editor offers: those that the cells above and this one define, Python's own, and the
   course's (names.json). Nothing here runs the reader's code. */

import {
  CompletionContext, EditorState, ensureSyntaxTree, globalCompletion, localCompletionSource, pythonLanguage,
} from "../../vendor/editor/codemirror.js";

const MODULE = /^[ \t]*import[ \t]+([\w.]+)(?:[ \t]+as[ \t]+(\w+))?/gm;
const MEMBER = /(?<![\w.])(\w+)\.(\w*)$/;
const FROM = /^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]+[(\w\s,]*?(\w*)$/;
const IMPORT = /^[ \t]*(?:from|import)[ \t]+([\w.]*)$/;
const IDENTIFIER = /^\w*$/;
const FEWEST = 2; // characters before names are offered unasked
const PATIENCE = 100; // milliseconds to read a cell

/** The modules that names of the code stand for. */
function modules(code) {
  return new Map([...code.matchAll(MODULE)].map(([, module, alias]) => [alias ?? module, module]));
}

/** Options for the names of one of the course's modules, as they are written behind `owner`. */
function options(course, module, owner = "") {
  return Object.entries(course[module] ?? {}).map(([name, type]) =>
    ({ label: owner + name, type, detail: `${type} of ${module}`, boost: owner ? -10 : 0 }));
}

/** The place in `code`, all of it parsed if there is time, as CodeMirror asks about it. */
function place(code, at, explicit) {
  let state = EditorState.create({ doc: code, extensions: [pythonLanguage.extension] });
  ensureSyntaxTree(state, code.length, PATIENCE);
  state = state.update({}).state; // which takes the tree over
  return new CompletionContext(state, at, explicit);
}

/** What `code` binds outside functions: read with patterns, since a chapter's code takes long to parse. */
function defined(code) {
  const found = new Map();
  const add = (label, type) => found.has(label) || found.set(label, { label, type });
  for (const [, kind, name] of code.matchAll(/^(?:async[ \t]+)?(def|class)[ \t]+(\w+)/gm)) {
    add(name, kind === "def" ? "function" : "class");
  }
  for (const [, names] of code.matchAll(/^((?:\w+[ \t]*,[ \t]*)*\w+)[ \t]*(?::[^=\n]*)?=(?!=)/gm)) {
    for (const name of names.split(",")) add(name.trim(), "variable");
  }
  for (const [, names] of code.matchAll(/^(?:from[ \t]+[\w.]+[ \t]+)?import[ \t]+(\([^)]*\)|[^\n(]*)/gm)) {
    for (const one of names.replace(/[()]|#.*/g, "").split(",")) {
      const name = one.trim().split(/\s+as\s+/).at(-1).replace(/\..*/, "");
      if (name && IDENTIFIER.test(name)) add(name, "namespace");
    }
  }
  return [...found.values()];
}

/**
 * A source of completions for CodeMirror.
 *
 * `above()` is the text of the cells above; `course` the names of its modules, or a promise of them.
 */
export function completions(above, course) {
  return async (context) => {
    const { state, pos, explicit } = context;
    const line = state.sliceDoc(state.doc.lineAt(pos).from, pos);
    const before = above(), known = await course;
    const [, module, part] = line.match(FROM) ?? [];
    if (known[module]) return { from: pos - part.length, options: options(known, module), validFor: IDENTIFIER };
    const [, path] = line.match(IMPORT) ?? [];
    if (path !== undefined && (path || explicit)) {
      return { from: pos - path.length, validFor: /^[\w.]*$/,
        options: Object.keys(known).map((label) => ({ label, type: "namespace" })) };
    }
    const [, owner, member] = line.match(MEMBER) ?? [];
    const imported = modules(`${before}\n${state.sliceDoc()}`);
    if (owner) {
      const found = options(known, imported.get(owner));
      return found.length ? { from: pos - member.length, options: found, validFor: IDENTIFIER } : null;
    }
    const own = place(state.sliceDoc(), pos, explicit), here = localCompletionSource(own);
    if (!here || (!explicit && pos - here.from < FEWEST)) return null; // inside a text, say
    const typed = state.sliceDoc(here.from, pos);
    const seen = new Set();
    return { from: here.from, validFor: IDENTIFIER, options: [...here.options, ...defined(before),
      ...[...imported].flatMap(([name, module]) => options(known, module, `${name}.`)),
      ...(globalCompletion(own)?.options ?? []).map((one) => ({ ...one, boost: -20 })),
    ].filter(({ label }) => label !== typed && !seen.has(label) && seen.add(label)) };
  };
}
