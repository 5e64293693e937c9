/* "Edit and run" below every code cell of a notebook's page, "Check step 2" below what checks an exercise.
   Nothing else is loaded before the first click, unless this browser keeps an edit of this page, which then
   stands in its cell again. A page that is made for Python, the playground, names its module instead. */

(() => {
  const { notebook, module, checks = "{}" } = document.currentScript.dataset, names = JSON.parse(checks);
  const onDisk = location.protocol === "file:";
  if (module && !onDisk) {
    import(`./${module}`).catch((error) => {
      document.documentElement.removeAttribute("data-served"); // nothing comes into the room that it has
      throw error;
    });
  }
  let cells;
  const load = () => cells ??= import("./cells.js").then(({ take }) => take(notebook));
  const lost = () => cells = null; // no server, or the page is left

  for (const [index, cell] of [...document.querySelectorAll("div.cell")].entries()) {
    const code = cell.querySelector(":scope > .cell_input, :scope > details");
    if (!code) continue;
    const tools = document.createElement("div");
    tools.className = "in-page-tools";
    const button = (text, kind, act) => {
      const made = tools.appendChild(document.createElement("button"));
      made.type = "button";
      made.className = `btn btn-sm btn-outline-secondary ${kind}`;
      made.textContent = text;
      // launch.js explains to those who have opened the page as a file what this needs.
      if (onDisk) made.dataset.needsServer = notebook.replace(/ipynb$/, "html");
      else made.addEventListener("click", () => load().then((all) => act(all[index]), () => {
        lost();
        made.textContent = `${text} (try again)`;
      }));
    };
    if (names[index]) button(names[index], "in-page-check", (one) => one.check());
    button("Edit and run", "in-page-edit", (one) => one.edit());
    code.after(tools);
  }
  try {
    if (!onDisk && localStorage.getItem(`peft-book edits ${notebook}`)) load().catch(lost);
  } catch { /* a browser that keeps nothing */ }
})();
