/* The first script of JupyterLite's pages (build.py sets KERNEL, the kernel's own script, and OPTIONS,
   what that script gives to Pyodide).

   A worker from a file comes under no policy, and what a notebook runs in it reaches any host; one from
   a blob inherits the page's. So each worker of these pages starts in a blob that loads its file.
   That is so where the service worker, through which cells read files, hears a blob: in Chromium. In
   Firefox a notebook's kernel would wait for its first file for ever; there workers stay files, which
   get their policy from the service worker (under-policy.js), so none starts here before that is there.

   And Python starts while JupyterLite itself still loads: on two cores the two go side by side.
   JupyterLite starts its worker only when the notebook is open. The page of a notebook makes it here
   at once, from this same file, which loads Python, the packages and their modules, then KERNEL. When
   JupyterLite then asks for its worker, it gets this one; asked for Python, the worker gives the one
   on its way. A kernel that is restarted gets a worker of its own as ever. */

const HEARD = /Chrome\//.test(navigator.userAgent); // as in build.py's GUARD

if (self.document) {
  const Plain = Worker, root = new URL(".", document.currentScript.src).href;
  const blob = (code) => URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  // With these headers (COOP, COEP) a server asks for the kernel's other worker: not before its time.
  let early = !crossOriginIsolated && location.pathname.includes("/notebooks/")
    && (HEARD || navigator.serviceWorker?.controller)
    && new URLSearchParams(location.search).get("path")?.endsWith(".ipynb")
    && new Plain(HEARD ? blob(`self.ROOT = ${JSON.stringify(root)}; importScripts(ROOT + "early.js");`)
      : `${root}early.js`);
  self.Worker = class extends Plain {
    constructor(url, options) {
      const { href, protocol } = new URL(url, document.baseURI), file = JSON.stringify(href);
      if (early && href.includes(KERNEL)) {
        const taken = early;
        early = null;
        return taken;
      }
      if (HEARD && /^https?:$/.test(protocol)) {
        url = blob(options?.type === "module" ? `import ${file};` : `importScripts(${file});`);
      }
      super(url, options);
    }
  };
} else {
  if (HEARD && location.protocol !== "blob:") throw new Error("only in a blob");
  self.ROOT ??= new URL(".", location.href).href;
  const folder = `${ROOT}static/pyodide/`;
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
  importScripts(ROOT + KERNEL);
}
