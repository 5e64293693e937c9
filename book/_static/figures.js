/* Figures that are drawn as SVG: a curve or a legend's entry under the mouse, in focus or pressed is picked
   out in all panels; a figure that is clicked, or whose button is, fills the window. */

(() => {
  const series = (event) => event.target.closest?.(".drawn [data-series]");

  /** Let one series stand out; without one that of the pressed entry, or all. */
  function pick(figure, number = figure.querySelector("[aria-pressed=true]")?.dataset.series) {
    for (const part of figure.querySelectorAll("[data-series]")) {
      part.classList.toggle("is-faint", number !== undefined && part.dataset.series !== number);
    }
  }

  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const one = series(event);
      if (one) pick(one.closest(".drawn"), one.dataset.series);
    });
  }
  for (const kind of ["pointerout", "focusout"]) {
    document.addEventListener(kind, (event) => {
      const figure = series(event)?.closest(".drawn");
      if (figure) pick(figure);
    });
  }

  /** Show the figure itself, not a copy, in a dialog; a stand-in keeps its place. */
  function enlarge(figure) {
    const dialog = document.body.appendChild(document.createElement("dialog"));
    const place = document.createElement("div");
    const button = figure.querySelector(".drawn-enlarge");
    dialog.className = "drawn-dialog";
    dialog.setAttribute("aria-label", "The figure, enlarged");
    place.style.height = `${figure.offsetHeight}px`;
    figure.replaceWith(place);
    dialog.append(figure);
    button.textContent = "Close";
    // Not every browser closes it on Escape by itself; Chromium without a window does not.
    dialog.addEventListener("keydown", (event) => { if (event.key === "Escape") dialog.close(); });
    dialog.addEventListener("close", () => {
      button.textContent = "Enlarge";
      place.replaceWith(figure);
      dialog.remove();
      button.focus({ preventScroll: true });
    });
    dialog.showModal();
    button.focus({ preventScroll: true });
  }

  document.addEventListener("click", (event) => {
    const figure = event.target.closest?.(".drawn");
    const entry = event.target.closest?.(".drawn-legend button");
    if (entry) {
      const pressed = entry.getAttribute("aria-pressed") === "true";
      for (const one of entry.parentElement.children) one.setAttribute("aria-pressed", one === entry && !pressed);
      pick(figure, pressed ? undefined : entry.dataset.series);
    } else if (figure && event.target.closest("svg, .drawn-enlarge") && !getSelection().toString()) {
      const dialog = figure.closest("dialog");
      if (dialog) dialog.close();
      else enlarge(figure);
    }
  });

  window.addEventListener("DOMContentLoaded", () => {
    for (const figure of document.querySelectorAll(".drawn")) {
      const button = figure.appendChild(document.createElement("button"));
      Object.assign(button, { type: "button", className: "drawn-enlarge", textContent: "Enlarge" });
    }
  });
})();
