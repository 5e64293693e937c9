/* Python for a page: a worker that is replaced when it is stopped or breaks (worker.js), and what it notes. */

import { Bounds, failure, words } from "./bounds.js";
import { days } from "./days.js";

export const BASE = new URL(".", import.meta.url);
export const STOPPED = new Error("stopped by the reader");

/** Python in its worker. It is replaced when the reader stops it, or when it breaks. */
export class Python {
  constructor(folder) {
    this.folder = folder;
    this.onLoading = () => {};
  }

  /** Start it unless it is there; resolves when cells can run. */
  start() {
    this.ready ??= new Promise((resolve, reject) => {
      const code = `const HERE = "${BASE}"; importScripts(HERE + "worker.js");`;
      this.worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
      const { worker } = this;
      this.end = (error) => {
        if (this.worker !== worker) return;  // it has ended already
        worker.terminate();
        this.worker = this.ready = null;
        reject(error);
        this.fail?.(error);
      };
      this.worker.addEventListener("error", (event) => {
        event.preventDefault();  // it is told at the cell
        this.end(new Error(event.message || "its file is missing"));
      });
      this.bounds = new Bounds();
      this.worker.addEventListener("message", ({ data }) => {
        if (this.worker !== worker) return;
        if (this.bounds.flooded) this.end(new Error("it sends messages without end"));
        else if (data?.type === "loading") this.onLoading(words(data.text, 200));
        else if (data?.type === "ready") resolve();
        else if (data?.output?.output_type === "progress") {
          if (this.bounds.mayNote) note(data.output.done);
        }
        else if (data?.type === "output") this.add(data.output);
        else if (data?.type === "done") this.finish?.(failure(data.failure));
        else this.end(new Error(words(data?.reason, 2_000)));
      });
      this.worker.postMessage({ type: "start", folder: this.folder });
    });
    return this.ready;
  }

  /** Run a cell; resolves with what went wrong in it, or null. */
  run(source, outputs) {
    this.outputs = outputs;
    this.bounds = new Bounds();
    return new Promise((finish, fail) => {
      Object.assign(this, { finish, fail });
      this.worker.postMessage({ type: "run", source });
    });
  }

  add(output) {
    const taken = this.outputs && this.bounds.take(output);
    if (taken) this.outputs.add(taken);
  }

  stop() {
    if (this.worker) this.end(STOPPED);
  }
}

/** Tick on the page of the exercises what was passed here; progress.js reads it there. */
function note(passed) {
  try {
    const key = "peft-book-progress", done = JSON.parse(localStorage.getItem(key));
    localStorage.setItem(key, JSON.stringify({ ...days(passed), ...days(done) }));
    window.dispatchEvent(new Event(key));  // "storage" is told to other tabs alone
  } catch { /* a browser that keeps nothing */ }
}
