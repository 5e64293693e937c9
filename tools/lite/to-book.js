/* A link from one notebook to another page of the book leads to that page (BOOK, set by build.py, names
   them), which has its figures, tables and live widgets. JupyterLite would open a second notebook
   without any outputs, and Markdown as text to edit. */

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-commandlinker-args]");
  const { path, id = "" } = JSON.parse(link?.dataset.commandlinkerArgs ?? "{}");
  if (!BOOK.includes(path)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  open(`../../${path.replace(/\.\w+$/, ".html")}${id}`, "_blank");
}, true);
