/* Python for a page: a worker that is replaced when it is stopped or breaks (worker.js), and what it notes. */

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
      this.end = (error) => {
        this.worker.terminate();
        this.worker = this.ready = null;
        reject(error);
        this.fail?.(error);
      };
      this.worker.addEventListener("error", (event) =>
        this.end(new Error(event.message || "its file is missing")));
      this.worker.addEventListener("message", ({ data }) => {
        if (data.type === "loading") this.onLoading(data.text);
        else if (data.type === "ready") resolve();
        else if (data.output?.output_type === "progress") note(data.output.done);
        else if (data.type === "output") this.outputs?.add(data.output);
        else if (data.type === "done") this.finish?.(data.failure);
        else this.end(new Error(data.reason));
      });
      this.worker.postMessage({ type: "start", folder: this.folder });
    });
    return this.ready;
  }

  /** Run a cell; resolves with what went wrong in it, or null. */
  run(source, outputs) {
    this.outputs = outputs;
    return new Promise((finish, fail) => {
      Object.assign(this, { finish, fail });
      this.worker.postMessage({ type: "run", source });
    });
  }

  stop() {
    if (this.worker) this.end(STOPPED);
  }
}

/** Tick on the page of the exercises what was passed here; progress.js reads it there. */
function note(passed) {
  try {
    const key = "peft-book-progress", done = JSON.parse(localStorage.getItem(key)) ?? {};
    localStorage.setItem(key, JSON.stringify({ ...passed, ...done }));
  } catch { /* a browser that keeps nothing */ }
}
