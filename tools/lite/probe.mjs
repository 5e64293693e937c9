// Runs code/stage-09/probe.py in Pyodide, the Python of the browser, and prints what it found as JSON.
//
//     node probe.mjs FOLDER LOCK CODE     Pyodide's files, pyodide-lock.json, the folder of probe.py
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, lock, code] = process.argv.slice(2).map((path) => resolve(path));
const { loadPyodide } = await import(pathToFileURL(join(folder, "pyodide.mjs")).href);
const python = await loadPyodide({ indexURL: folder + "/", lockFileURL: lock });
await python.loadPackage("numpy", { messageCallback: () => {} });
python.FS.mkdirTree("/code");
python.mountNodeFS("/code", code);
try {
  console.log(python.runPython(`
import json, platform, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "/code")
import probe
json.dumps({"python": platform.python_version(), "results": probe.results()})
`));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
