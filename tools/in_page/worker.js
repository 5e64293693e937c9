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
const START = "in-page.bin";  // build.py names its edition
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

/** The files of an archive (archive.py), by their names. */
async function unpacked(address) {
  const { body } = await fetch(address);
  const bytes = await new Response(body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  let at = 4 + new DataView(bytes).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, at - 4)));
  return new Map(head.map(([name, size]) => [name, new Uint8Array(bytes, (at += size) - size, size)]));
}

/** Lay files where Python finds them, and let Pyodide know of packages that are whole: it loads them no more. */
function lay(python, files) {
  const folders = new Set();
  for (const [name, bytes] of files) {
    const folder = name.slice(0, name.lastIndexOf("/")), known = /([^/]+)-[^-/]+\.dist-info$/.exec(folder);
    if (!folders.has(folder)) python.FS.mkdirTree(folder);
    folders.add(folder);
    python.FS.writeFile(name, bytes, { canOwn: true });
    if (known) python.loadedPackages[known[1].replaceAll("_", "-")] = "default channel";
  }
}

async function start(folder) {
  say("loading", { text: "Loading Python" });
  const begun = unpacked(PYODIDE + START), code = unpacked(new URL("code.bin", HERE));
  const memory = begun.then((files) => files.get("memory"));  // of a Python that has imported IPython: memory.mjs
  importScripts(`${PYODIDE}pyodide.js`);
  const [python, modules, course] = await Promise.all([  // all of them, so that none fails with nobody to hear
    loadPyodide({ indexURL: PYODIDE, stdout: () => {}, stderr: () => {}, _loadSnapshot: memory }), begun, code, memory]);
  modules.delete("memory");
  lay(python, modules);
  lay(python, course);
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
    say("broken", { reason: String(error?.message ?? error).slice(0, 2000) });
  }
};
