/* The first script of JupyterLite's pages (build.py sets KERNEL, the kernel's own script, and OPTIONS,
   what that script gives to Pyodide).

   A worker from a file comes under no policy, and what a notebook runs in it reaches any host; one from
   a blob inherits the page's. So each worker of these pages starts in a blob that loads its file.
   In Firefox the service worker, through which cells read files, does not hear a blob: a notebook's
   kernel would wait for its first file for ever. There workers stay files where that service worker
   controls the page, since it gives them the policy (under-policy.js). Where there is none, at a plain
   http:// address, say, or in a private window, they start in a blob as everywhere, and have no files.
   No kernel starts before it is known which of the two it is (build.py lets it wait for `controlled`,
   and asks `hasFiles`): that a page is controlled does not yet say that its workers' files come
   through the service worker, so a worker is asked.

   And Python starts while JupyterLite itself still loads: on two cores the two go side by side.
   JupyterLite starts its worker only when the notebook is open. The page of a notebook makes it here
   at once, from this same file, which loads Python, the packages and their modules, then KERNEL. When
   JupyterLite then asks for its worker, it gets this one; asked for Python, the worker gives the one
   on its way. A kernel that is restarted gets a worker of its own as ever. */

const HEARD = /Chrome\//.test(navigator.userAgent); // as in build.py's GUARD
const WAIT = 10_000; // milliseconds for a service worker that is on its way

if (self.document) {
  const Plain = Worker, root = new URL(".", document.currentScript.src).href;
  const blob = (code) => URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { serviceWorker } = navigator;
  let polices = false; // whether a worker's file comes through the service worker, with the policy
  // With these headers (COOP, COEP) a server asks for the kernel's other worker: not before its time.
  const wanted = !crossOriginIsolated && location.pathname.includes("/notebooks/")
    && new URLSearchParams(location.search).get("path")?.endsWith(".ipynb");
  let early = null;
  const begin = () => {
    if (wanted) {
      early ??= new Plain(polices ? `${root}early.js`
        : blob(`self.ROOT = ${JSON.stringify(root)}; importScripts(ROOT + "early.js");`));
    }
  };
  if (HEARD && (!serviceWorker || serviceWorker.controller)) begin();
  self.controlled = (async () => {
    if (!serviceWorker) return;
    const changed = new Promise((done) => {
      serviceWorker.addEventListener("controllerchange", done);
      setTimeout(done, WAIT);
    });
    const known = await serviceWorker.getRegistration(root);
    if (serviceWorker.controller) {
      const now = HEARD || await known.update();  // an earlier edition's may give no policy
      if (!now.installing && !now.waiting) return;
    } else if (known?.active) {
      known.active.postMessage("claim");  // after a reload past all caches; a worker begins after it
    } else if (HEARD) {
      begin();  // the first visit: the service worker takes over what is there when it comes
    }
    await changed;
  })().catch(() => {})  // it is not to be had, or the server is away
    .then(async () => {
      for (const end = Date.now() + WAIT; !HEARD && serviceWorker?.controller && !polices && Date.now() < end;) {
        polices = await new Promise((answer) => {
          const asked = new Plain(`${root}early.js`, { name: "policed?" });
          asked.onmessage = ({ data }) => answer(data);
          asked.onerror = () => answer(false);
        });
        if (!polices) await new Promise((later) => setTimeout(later, 200));
      }
    });
  self.hasFiles = () => Boolean(serviceWorker?.controller) && (HEARD || polices);
  self.controlled.then(begin);

  self.Worker = class extends Plain {
    constructor(url, options) {
      const { href, protocol } = new URL(url, document.baseURI), file = JSON.stringify(href);
      if (early && href.includes(KERNEL)) {
        const taken = early;
        early = null;
        return taken;
      }
      if (!polices && /^https?:$/.test(protocol)) {
        url = blob(options?.type === "module" ? `import ${file};` : `importScripts(${file});`);
      }
      super(url, options);
    }
  };
} else if (self.name === "policed?") {
  self.postMessage(Boolean(self.POLICED));
  self.close();
} else {
  if (location.protocol !== "blob:" && (HEARD || !self.POLICED)) throw new Error("only in a blob");
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
