/* What the page takes from its worker: a cell's code can post messages itself, past reader.py. */

/** Of one run, a little more than reader.py sends: characters of text, characters of figures and tables,
    their number, and all messages. */
const TEXT = 110_000, RICH = 21_000_000, COUNT = 120, MESSAGES = 12_000;
const NOTES = 5;  // of what was passed: reader.py sends one, and each is kept
const OBJECTS = ["application/json", "application/vnd.jupyter.widget-view+json"];
const LEFT_OUT = "\n[The page shows no more of this run.]\n";

/** What is no text is none, and what is long is cut. */
export const words = (text, most) => (typeof text === "string" ? text.slice(0, most) : "");

const number = (value, least) => (Number.isInteger(value) && value >= least ? value : null);

/** What went wrong in a cell, with the parts that the page shows. */
export function failure(given) {
  return given && {
    name: words(given.name, 200), message: words(given.message, 2_000), line: number(given.line, 1),
    text: words(given.text, 1_000), traceback: words(given.traceback, 21_000) };
}

/** What one run may still send. */
export class Bounds {
  constructor() {
    Object.assign(this, { text: 0, rich: 0, count: 0, messages: 0, notes: 0, said: false });
  }

  /** Whether the worker sends messages as if without end. */
  get flooded() {
    this.messages += 1;
    return this.messages > MESSAGES;
  }

  /** Whether the worker may have one more pass noted. */
  get mayNote() {
    this.notes += 1;
    return this.notes <= NOTES;
  }

  /** An output as the page knows it; null for one that is none, or one too many. */
  take(output) {
    if (output?.output_type === "clear") return { output_type: "clear", wait: Boolean(output.wait) };
    const taken = output?.output_type === "stream" ? this.stream(output) : this.shown(output);
    if (taken || this.said) return taken;
    this.said = true;
    return { output_type: "stream", name: "stderr", text: LEFT_OUT };
  }

  stream({ name, text: given }) {
    const text = words(given, Math.max(0, TEXT - this.text));
    this.text += text.length;
    return text && { output_type: "stream", name: name === "stderr" ? name : "stdout", text };
  }

  shown(output) {
    this.count += 1;
    const data = Object.fromEntries(Object.entries(output?.data ?? {}).filter(([kind, value]) =>
      typeof value === "string" || (value && OBJECTS.includes(kind))));
    const more = size(data);
    if (this.count > COUNT || this.rich + more > RICH || !Object.keys(data).length) return null;
    this.rich += more;
    const width = number(output.metadata?.["image/png"]?.width, 1);
    return { output_type: words(output.output_type, 20), data, id: words(output.id, 200) || null,
      metadata: width ? { "image/png": { width } } : {} };
  }
}

/** Characters of what may hold itself, which is then without end. */
function size(data) {
  try {
    return JSON.stringify(data).length;
  } catch {
    return Infinity;
  }
}
