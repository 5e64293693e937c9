/* Formulas: KaTeX draws what Sphinx left as TeX in each .math. */

(() => {
  const environments = ["align", "equation", "gather"].flatMap((name) => [name, `${name}*`]);
  const delimiters = [
    { left: "\\(", right: "\\)", display: false },
    { left: "\\[", right: "\\]", display: true },
    ...environments.map((name) => (
      { left: `\\begin{${name}}`, right: `\\end{${name}}`, display: true })),
  ];

  window.addEventListener("DOMContentLoaded", () => {
    for (const box of document.querySelectorAll(".math")) {
      renderMathInElement(box, { delimiters, throwOnError: false });
    }
  });
})();
