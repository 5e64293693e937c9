/* "Edit and run" below every code cell of a notebook's page. Nothing else is loaded before the first
   click, unless this browser keeps an edit of this page, which then stands in its cell again. A page
   that is made for Python, the playground, names its module instead. */

(() => {
  const { notebook, module } = document.currentScript.dataset;
  const onDisk = location.protocol === "file:";
  if (module && !onDisk) import(`./${module}`);
  let cells;
  const load = () => cells ??= import("./cells.js").then((module) => module.take(notebook));

  for (const [index, cell] of [...document.querySelectorAll("div.cell")].entries()) {
    const code = cell.querySelector(":scope > .cell_input, :scope > details");
    if (!code) continue;
    const tools = document.createElement("div");
    tools.className = "in-page-tools";
    const button = tools.appendChild(document.createElement("button"));
    button.type = "button";
    button.className = "btn btn-sm btn-outline-secondary in-page-edit";
    button.textContent = "Edit and run";
    // launch.js explains to those who have opened the page as a file what this needs.
    if (onDisk) button.dataset.needsServer = notebook.replace(/ipynb$/, "html");
    else button.addEventListener("click", async () => (await load())[index].edit());
    code.after(tools);
  }
  try {
    if (!onDisk && localStorage.getItem(`peft-book edits ${notebook}`)) load();
  } catch { /* a browser that keeps nothing */ }
})();
