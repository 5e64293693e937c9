/* The menu that runs a page. A page opened straight from disk cannot start Python in the browser, which
   needs an address: say how to get one, instead of leading nowhere. So too for what a script marks with
   data-needs-server, the path of the page from the book's root. */

(() => {
  function explain(target, name) {
    const dialog = document.createElement("dialog");
    dialog.className = "launch-help";
    dialog.setAttribute("aria-labelledby", "launch-help-title");
    const add = (parent, name, text, attributes = {}) => {
      const made = parent.appendChild(document.createElement(name));
      made.textContent = text;
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    };
    add(dialog, "h2", "One command first", { id: "launch-help-title" });
    add(dialog, "p", "This page was opened as a file. Python in the browser needs a small server on your own "
      + "machine; nothing is installed and nothing leaves it. In the folder of the book that holds lite/, run");
    add(dialog, "pre", "python -m http.server 8000 --bind 127.0.0.1");
    const line = add(dialog, "p", "and open ");
    add(line, "a", name, { href: `http://localhost:8000/${target}`, target: "_blank" });
    line.append(".");
    const close = add(dialog, "button", "Close", { type: "button", class: "btn btn-sm btn-outline-secondary" });
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    // Not every browser closes it on Escape by itself; Chromium without a window does not.
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "Escape") dialog.close();
    });
    document.body.append(dialog);
    dialog.showModal();
  }

  // The theme's buttons, whose own handlers stood in attributes, which the pages' policy forbids.
  const does = { fullscreen: () => window.toggleFullScreen(), print };

  const late = () => [...document.querySelectorAll("img[loading=lazy]")];

  /** With all that a page loads late, which the browser's own command may not wait for. */
  async function print() {
    const images = late().map((image) => { image.loading = "eager"; return image.decode().catch(() => {}); });
    await Promise.all([...images, window.bookWidgets?.showAll()]);
    window.print();
  }
  window.addEventListener("beforeprint", () => late().forEach((image) => { image.loading = "eager"; }));

  document.addEventListener("click", (event) => {
    does[event.target.closest?.("[data-does]")?.dataset.does]?.();
    const asked = event.target.closest?.("a.btn-launch-lite, [data-needs-server]");
    if (asked && location.protocol === "file:") {
      event.preventDefault();
      const page = asked.dataset.needsServer;
      if (page) explain(page, "this page there");
      else explain(asked.getAttribute("href").replace(/^(\.\.\/)+/, ""), "the notebook there");
    }
  });
})();
