/* Formulas: KaTeX draws what Sphinx left as TeX in each .math. One that is wider than the page scrolls
   in its own box; let the keyboard reach that box. */

(() => {
  const environments = ["align", "equation", "gather"].flatMap((name) => [name, `${name}*`]);
  const delimiters = [
    { left: "\\(", right: "\\)", display: false },
    { left: "\\[", right: "\\]", display: true },
    ...environments.map((name) => (
      { left: `\\begin{${name}}`, right: `\\end{${name}}`, display: true })),
  ];

  function mark() {
    for (const box of document.querySelectorAll("span.math, div.math > span")) {
      const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      if (scrolls && getComputedStyle(box).overflowX === "auto") box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  window.addEventListener("DOMContentLoaded", () => {
    const boxes = document.querySelectorAll(".math");
    for (const box of boxes) renderMathInElement(box, { delimiters, throwOnError: false });
    if (boxes.length) document.fonts.ready.then(mark);
    window.addEventListener("resize", mark);
  });
})();
