// Runs tools/probe.py in Pyodide, the Python of the browser, and prints what it found as JSON.
//
//     node probe.mjs FOLDER LOCK ROOT     Pyodide's files, pyodide-lock.json, the book's folder
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, lock, root] = process.argv.slice(2).map((path) => resolve(path));
const { loadPyodide } = await import(pathToFileURL(join(folder, "pyodide.mjs")).href);
const python = await loadPyodide({ indexURL: folder + "/", lockFileURL: lock });
await python.loadPackage("numpy", { messageCallback: () => {} });
python.FS.mkdirTree("/book");
python.mountNodeFS("/book", root);
try {
  console.log(python.runPython(`
import json, platform, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "/book/tools")
import probe
json.dumps({"python": platform.python_version(), "results": probe.results()})
`));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
