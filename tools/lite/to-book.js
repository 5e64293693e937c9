/* From a notebook to the book (BOOK, set by build.py, names its pages).

   A link from one notebook to another page of the book leads to that page, which has its figures,
   tables and live widgets. JupyterLite would open a second notebook without any outputs, and Markdown
   as text to edit. And a band above the notebook leads back to its own page. It says what does not work
   where a browser keeps nothing, or gives a notebook no files (early.js). */

const address = (path) => `../../${path.replace(/\.\w+$/, ".html")}`;

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-commandlinker-args]");
  const { path, id = "" } = JSON.parse(link?.dataset.commandlinkerArgs ?? "{}");
  if (!BOOK.includes(path)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  open(`${address(path)}${id}`, "_blank");
}, true);

document.addEventListener("DOMContentLoaded", () => {
  if (document.getElementById("lacks")) return;  // needs.js has said why there is no notebook
  const add = (parent, name, set) => parent.appendChild(Object.assign(document.createElement(name), set));
  add(document.head, "style", { textContent: `
    html, body { height: 100%; }
    body { display: flex; flex-direction: column; }
    #main { flex: 1; min-height: 0; position: relative !important; }
    #to-book { background: #fff; color: #111; font: 14px/1.4 system-ui, sans-serif; padding: 4px 12px; }
    #to-book p { margin: 0; }
    #to-book a { color: #0b57d0; }
    .jp-mod-dark #to-book, [data-jp-theme-light=false] #to-book { background: #111; color: #fff; }
    .jp-mod-dark #to-book a, [data-jp-theme-light=false] #to-book a { color: #8ab4f8; }` });
  const path = new URLSearchParams(location.search).get("path");
  const band = document.createElement("nav");
  band.id = "to-book";
  band.setAttribute("aria-label", "The book");
  add(band, "a", BOOK.includes(path) ? { href: address(path), textContent: "← Back to its page in the book" }
    : { href: "../../index.html", textContent: "← Back to the book" });
  document.body.prepend(band);

  const note = (textContent) => {
    add(band, "p", { textContent }).setAttribute("role", "status");
    dispatchEvent(new Event("resize"));  // JupyterLite asks only then how high it is
  };
  controlled.then(() => hasFiles() || note("Cells here find no files, and none of the course’s code: that takes "
    + "https:// or localhost, and a window that is not private. In the book’s own page they run."));
  try {
    const asked = indexedDB.open("peft-book asked");
    asked.onerror = forgets;
    asked.onsuccess = () => {
      asked.result.close();
      indexedDB.deleteDatabase("peft-book asked");
    };
  } catch {
    forgets();
  }
  function forgets() {
    note("This browser keeps no changes of yours: download the notebook before you leave.");
  }
});
