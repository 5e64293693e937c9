/* The first script of JupyterLite's pages (build.py sets KERNEL, the kernel's own script, and OPTIONS,
   what that script gives to Pyodide).

   A worker from a file comes under no policy, and what a notebook runs in it reaches any host; one from
   a blob inherits the page's. So each worker of these pages starts in a blob that loads its file.
   In Firefox the service worker, through which cells read files, does not hear a blob: a notebook's
   kernel would wait for its first file for ever. There workers stay files where that service worker
   controls the page, since it gives them the policy (under-policy.js). Where there is none, at a plain
   http:// address, say, or in a private window, they start in a blob as everywhere, and have no files.
   No kernel starts before it is known which of the two it is (build.py lets it wait for `controlled`,
   and asks `hasFiles`): that a page is controlled does not say that its workers' files come through
   the service worker. In Firefox now and then one does not, on a busy machine, though those before
   and after it do. So each kernel's worker is asked there before it is used, and made anew.

   And Python starts while JupyterLite itself still loads: on two cores the two go side by side.
   JupyterLite starts its worker only when the notebook is open. The page of a notebook makes it here
   at once, from this same file, which loads Python, the packages and their modules, then KERNEL. When
   JupyterLite then asks for its worker, it gets this one; asked for Python, the worker gives the one
   on its way. A kernel that is restarted gets a worker of its own as ever; in Firefox one from here. */

const HEARD = /Chrome\//.test(navigator.userAgent); // as in build.py's GUARD
const WAIT = 10_000; // milliseconds for a service worker, or a worker, that is on its way

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
      early ??= new Plain(
        blob(`self.ROOT = ${JSON.stringify(root)}; importScripts(ROOT + "early.js");`));
    }
  };
  /** A worker from the file that says it came through the service worker; null: none does. */
  const policed = async (name) => {
    for (const end = Date.now() + 3 * WAIT; serviceWorker?.controller && Date.now() < end;) {
      const asked = new Plain(`${root}early.js`, { name });
      const answer = await new Promise((done) => {
        asked.onmessage = () => done(true);
        asked.onerror = (event) => { event.preventDefault(); done(false); };
        setTimeout(done, WAIT);
      });
      asked.onmessage = asked.onerror = null;
      if (answer) return asked;
      asked.terminate();
      await new Promise((later) => setTimeout(later, 200));
    }
    return null;
  };
  const ready = async () => {
    if (!HEARD && !early) {
      const through = await policed(wanted ? "kernel" : "asked");
      polices = Boolean(through);
      if (wanted) early = through;
    }
    if (!polices) begin();
  };
  if (HEARD && (!serviceWorker || serviceWorker.controller)) begin();
  let known = (async () => {
    if (!serviceWorker) return;
    const changed = new Promise((done) => {
      serviceWorker.addEventListener("controllerchange", done);
      setTimeout(done, WAIT);
    });
    const there = await serviceWorker.getRegistration(root);
    if (serviceWorker.controller) {
      const now = HEARD || await there.update();  // an earlier edition's may give no policy
      if (!now.installing && !now.waiting) return;
    } else if (there?.active) {
      there.active.postMessage("claim");  // after a reload past all caches; a worker begins after it
    } else if (HEARD) {
      begin();  // the first visit: the service worker takes over what is there when it comes
    }
    await changed;
  })().catch(() => {})  // it is not to be had, or the server is away
    .then(ready);
  // Each kernel asks this first, a restarted one, too.
  Object.defineProperty(self, "controlled", { get: () => (HEARD ? known : known = known.then(ready)) });
  self.hasFiles = () => Boolean(serviceWorker?.controller) && (HEARD || polices);

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
} else if (location.protocol !== "blob:" && (HEARD || !self.POLICED)) {
  throw new Error("only in a blob");
} else if (self.name === "asked") {
  self.postMessage("through");
  self.close();
} else {
  if (location.protocol !== "blob:") self.postMessage("through");
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
