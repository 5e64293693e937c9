/* Python for one page of the book, in a worker: Pyodide and the course's code, from the book's own files.

   python.js starts it through a blob, which names this folder, HERE: only so does a worker come under
   the page's policy, and what a cell runs reaches no other host.

   In:  {type: "start", folder}, {type: "run", source}
   Out: {type: "loading", text}, {type: "ready"}, {type: "output", output}, {type: "done", failure},
        {type: "broken", reason} */

// What this browser keeps is no business of a cell, which may be a stranger's: the notebooks above all,
// that the reader has changed in JupyterLite. Nor is a worker of its own, which would have all of it again.
const take = (from, names) => {
  for (const name of names) for (let place = from; place; place = Object.getPrototypeOf(place)) delete place[name];
};
take(self, ["indexedDB", "caches", "BroadcastChannel", "Worker", "SharedWorker", "webkitRequestFileSystem",
  "webkitRequestFileSystemSync", "webkitResolveLocalFileSystemURL", "webkitResolveLocalFileSystemSyncURL"]);
take(navigator, ["storage", "storageBuckets"]);

const PYODIDE = new URL("../../lite/static/pyodide/", HERE).href;
const PACKAGES = ["ipykernel", "comm", "pyodide_kernel", "ipython", "numpy"];
const say = (type, rest = {}) => postMessage({ type, ...rest });
let reader;

// What has arrived so far is all that can be said of a start: a cache may hold any of the files.
const plainFetch = fetch;
let bytes = 0, told = 0;
self.fetch = async (...asked) => {
  const answer = await plainFetch(...asked);
  if (!answer.ok) throw new Error(`${answer.url} is missing (${answer.status})`);
  bytes += Number(answer.headers.get("Content-Length"));
  if (bytes - told > 4e6) {  // not too often, since screen readers read it out
    told = bytes;
    say("loading", { text: `Loading ${reader ? "packages" : "Python"}: ${(bytes / 1e6).toFixed(0)} MB` });
  }
  return answer;
};

async function start(folder) {
  say("loading", { text: "Loading Python" });
  importScripts(`${PYODIDE}pyodide.js`);
  const code = fetch(new URL("code.zip", HERE)).then((answer) => answer.arrayBuffer());
  const [python, archive] = await Promise.all([
    loadPyodide({ indexURL: PYODIDE, packages: PACKAGES, stdout: () => {}, stderr: () => {} }), code]);
  python.unpackArchive(archive, "zip", { extractDir: "/home/pyodide" });
  say("loading", { text: "Starting Python" });
  await python.runPythonAsync(`import sys
sys.path.insert(0, "/home/pyodide/in-page")
import numpy, reader
sys.path.remove("/home/pyodide/in-page")`);
  reader = python.pyimport("reader");
  reader.begin((output) => say("output", { output: JSON.parse(output) }), folder);
  say("ready");
}

// After os._exit() there is no Python left to answer, and nothing but this says so.
addEventListener("unhandledrejection", (event) => {
  const reason = String(event.reason?.message ?? event.reason);
  if (!/^Program terminated|^Aborted|^memory access|^unreachable/.test(reason)) return;
  event.preventDefault();
  say("broken", { reason: reason.slice(0, 2000) });
});

onmessage = async ({ data }) => {
  try {
    if (data.type === "start") {
      await start(data.folder);
    } else {
      const failure = await reader.run(data.source);
      say("done", { failure: failure ? JSON.parse(failure) : null });
    }
  } catch (error) {
    say("broken", { reason: String(error.message ?? error).slice(0, 2000) });
  }
};
