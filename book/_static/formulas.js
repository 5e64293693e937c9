/* A formula that is wider than the page scrolls in its own box; let the keyboard reach that box. */

(() => {
  function mark() {
    for (const box of document.querySelectorAll(".math, mjx-container")) {
      const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      if (scrolls && getComputedStyle(box).overflowX === "auto") box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  window.addEventListener("load", () => {
    window.MathJax?.startup?.promise?.then(() => {
      mark();
      window.addEventListener("resize", mark);
    });
  });
})();
