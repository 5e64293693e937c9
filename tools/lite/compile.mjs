// Runs compile.py in Pyodide itself, so that the bytecode is the same whatever Python builds the book.
//
//     node compile.mjs FOLDER        FOLDER holds Pyodide's files; they are replaced by compiled ones
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const folder = resolve(process.argv[2]) + "/";
const { loadPyodide } = await import(pathToFileURL(join(folder, "pyodide.mjs")).href);
// Matplotlib lists its fonts in the order of a set: the same seed makes the same file each time.
const python = await loadPyodide({ indexURL: folder, env: { PYTHONHASHSEED: "0" } });
await python.loadPackage("matplotlib", { messageCallback: () => {} });
python.FS.mkdirTree("/files");
python.mountNodeFS("/files", folder);
const script = join(dirname(fileURLToPath(import.meta.url)), "compile.py");
try {
  python.runPython(readFileSync(script, "utf8"));
} catch (error) {  // without the megabytes of source that Node would show
  console.error(error.message);
  process.exit(1);
}
