/* What the button of start-again.html does. */

// Of the course's code, and of whatever any notebook can import: one kept here would run in every notebook.
const CODE = [/^(code|tools)\//, /\.(pyc?|so)$/];

const path = new URLSearchParams(location.search).get("path") || "";
const known = /^book\/[\w\/.-]+\.ipynb$/.test(path) && !path.includes("..");
const say = (text) => { document.getElementById("status").textContent = text; };
document.getElementById("forget").disabled = !known;
if (known) {
  document.getElementById("name").textContent = path;
  document.getElementById("open").href = `notebooks/index.html?path=${encodeURIComponent(path)}`;
} else {
  say("No notebook of the book is named in this page's address.");
}
document.getElementById("forget").addEventListener("click", () => {
  const asked = indexedDB.open("peft-book contents");
  asked.onerror = () => say("This browser's storage cannot be opened, so it keeps no changes either.");
  asked.onsuccess = () => {
    const database = asked.result;
    const stores = ["files", "checkpoints"].filter((name) => database.objectStoreNames.contains(name));
    if (!stores.length) {
      database.close();
      return say("There were no changes: the notebook is as it was.");
    }
    const work = database.transaction(stores, "readwrite");
    let files = 0;
    for (const name of stores) {
      const store = work.objectStore(name), keys = store.getAllKeys();
      keys.onsuccess = () => {
        const code = keys.result.filter((key) => CODE.some((kind) => kind.test(key)));
        if (name === "files") files = code.length;
        for (const key of [path, ...code]) store.delete(key);
      };
    }
    work.oncomplete = () => {
      database.close();
      say("Done: the notebook is as it was. Close other tabs that still show it."
        + (files ? ` Changed files of code that are gone, too: ${files}.` : ""));
    };
    work.onerror = () => say("The changes could not be removed; is the notebook open in another tab?");
  };
});
