/* Formulas. The build has drawn each where it first stands on a page; where it stands again it is TeX, of
   which this makes a copy of the first. What is drawn nowhere, say in an output of the reader's own run,
   KaTeX draws here, loaded for it. */

(() => {
  const root = new URL("..", document.currentScript.src);
  const TEX = /\\\(([^]*?)\\\)|\\\[([^]*?)\\\]/;
  const drawn = new Map();
  let katex;

  const add = (name, attributes) => new Promise((done) => {
    const made = Object.assign(document.createElement(name), attributes, { onload: done, onerror: done });
    if (name === "link") document.head.prepend(made);  // the book's own style sheets come later
    else document.head.append(made);
  });

  const load = () => katex ??= Promise.all([
    add("link", { rel: "stylesheet", href: new URL("katex/katex.min.css", root) }),
    add("script", { src: new URL("katex/katex.min.js", root) })]);

  /** The text node of a formula that is still TeX, what it says, and whether it stands alone. */
  function raw(box) {
    for (const text of box.childNodes) {
      const found = text.nodeType === Node.TEXT_NODE && TEX.exec(text.data);
      if (found) return { text, tex: (found[1] ?? found[2]).trim(), alone: found[1] === undefined };
    }
    return null;
  }

  const key = (tex, alone) => `${alone} ${tex}`;

  /** Draws all formulas in an element that are still TeX. */
  async function typeset(element) {
    const asked = [];
    for (const box of element.querySelectorAll(".math")) {
      const formula = raw(box);
      const first = formula && drawn.get(key(formula.tex, formula.alone));
      if (first) formula.text.replaceWith(first.cloneNode(true));
      else if (formula) asked.push(formula);
      else {
        const source = box.querySelector("annotation")?.textContent.trim();
        const alone = box.querySelector(".katex-display") !== null;
        if (source) drawn.set(key(source, alone), box.querySelector(".katex").closest(".math > span"));
      }
    }
    if (!asked.length) return;
    await load();
    for (const { text, tex, alone } of asked) {
      const place = document.createElement("span");
      window.katex.render(tex, place, { displayMode: alone, throwOnError: false });
      text.replaceWith(place);
    }
  }

  window.bookFormulas = typeset;
  document.addEventListener("DOMContentLoaded", () => typeset(document.body));
})();
