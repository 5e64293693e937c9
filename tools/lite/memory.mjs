// Runs memory.py in Pyodide, and keeps the memory that Python has then: one in a page starts from it.
//
//     node memory.mjs PYODIDE ARCHIVE MEMORY      with the modules of an archive (archive.py)
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";

// No clock, no chance and no name of this machine, for modules keep them: the same memory each time.
let now = 0;
Date.now = () => 0;
performance.now = () => now += 0.01;
globalThis.crypto.getRandomValues = (array) => array.fill(0);

const folder = resolve(process.argv[2]) + "/";
const { loadPyodide } = await import(pathToFileURL(join(folder, "pyodide.mjs")).href);
const python = await loadPyodide({ indexURL: folder, _makeSnapshot: true, _sysExecutable: "./this.program",
  env: { PYTHONHASHSEED: "0", LANG: "C.UTF-8" } });
const bytes = new Uint8Array(gunzipSync(readFileSync(process.argv[3])));
let at = 4 + new DataView(bytes.buffer).getUint32(0, true);
for (const [name, size] of JSON.parse(new TextDecoder().decode(bytes.subarray(4, at)))) {
  python.FS.mkdirTree(dirname(name));
  python.FS.writeFile(name, bytes.slice(at, at += size));
}
try {
  python.runPython(readFileSync(join(dirname(fileURLToPath(import.meta.url)), "memory.py"), "utf8"));
  writeFileSync(process.argv[4], python.makeMemorySnapshot());
} catch (error) {  // without the megabytes of source that Node would show
  console.error(error.message);
  process.exit(1);
}
