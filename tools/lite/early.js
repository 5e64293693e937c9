/* Start Python while JupyterLite itself still loads: on two cores the two go side by side.

   JupyterLite starts its worker, and with it Python, only when the notebook is open. The page of a
   notebook runs this file before all else; it makes the worker from this same file at once, which
   loads Python, the packages and their modules, then the kernel's own script (KERNEL, set by build.py
   together with OPTIONS, what that script gives to Pyodide). When JupyterLite then asks for its worker,
   it gets this one; asked for Python, the worker gives the one on its way. A kernel that is restarted
   gets a worker of its own as ever. */

if (self.document) {
  const here = document.currentScript.src;
  // With these headers (COOP, COEP) a server asks for the kernel's other worker, which we leave alone.
  if (!crossOriginIsolated && new URLSearchParams(location.search).get("path")?.endsWith(".ipynb")) {
    const Plain = Worker, early = new Plain(here);
    self.Worker = class extends Plain {
      constructor(url, options) {
        if (String(url).includes(KERNEL)) {
          self.Worker = Plain;
          return early;
        }
        super(url, options);
      }
    };
  }
} else {
  const folder = new URL("static/pyodide/", location).href;
  let given, python;
  // pyodide.js sets this name, and the kernel's script runs that file again: the second time in vain.
  Object.defineProperty(self, "loadPyodide", {
    get: () => given,
    set: (value) => { if (!python) given = value; },
  });
  importScripts(`${folder}pyodide.js`);
  python = given({ indexURL: folder, ...OPTIONS }).then(async (pyodide) => {
    await pyodide.runPythonAsync("import piplite.piplite, pyodide_kernel, numpy");
    return pyodide;
  });
  given = () => python;
  importScripts(KERNEL);
}
