/* What is wider than the page scrolls in a box of its own. Such a box says so (book.css draws a faded edge
   and a line of text) and can be reached with the keyboard. */

(() => {
  const BOXES = "pre, div.math > span, span.math, .text_html, "
    + ".pst-scrollable-table-container, .pw-scroll, .pw-filter-rows";
  const known = new WeakSet();
  let asked = false;

  function mark(box) {
    const style = getComputedStyle(box);
    // Nobody misses the padding at the end, which only counts while no hint stands below.
    const padding = box.dataset.scrolls ? 0 : parseFloat(style.paddingInlineEnd) || 0;
    const hidden = box.scrollWidth - padding - box.clientWidth;
    const scrolls = hidden > 1 && style.display !== "inline" && /auto|scroll/.test(style.overflowX);
    if (!scrolls) {
      if (box.dataset.scrolls) {
        delete box.dataset.scrolls;
        box.removeAttribute("tabindex");
      }
      return;
    }
    const left = box.scrollLeft > 2;
    const right = box.scrollLeft < hidden - 2;
    const sides = left && right ? "both" : left ? "left" : "right";
    if (box.dataset.scrolls !== sides) box.dataset.scrolls = sides;
    box.tabIndex = 0;
  }

  /* A widget's wide table: on a phone each row is a card, whose cells name their column. */
  function label(table) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    table.classList.add("is-cards");
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => { cell.dataset.label = names[column]; });
    }
  }

  const sizes = new ResizeObserver(() => again());

  function again() {
    if (!asked) requestAnimationFrame(look);
    asked = true;
  }

  function look() {
    asked = false;
    for (const box of document.querySelectorAll("article :is(" + BOXES + ")")) {
      if (!known.has(box)) {
        known.add(box);
        sizes.observe(box);
        box.addEventListener("scroll", () => mark(box), { passive: true });
        if (box.matches(".pw-filter-rows")) label(box.querySelector("table"));
        if (box.matches(".cell_output pre")) {
          // Longer lines than any table that is printed as text: prose, which may wrap.
          box.classList.toggle("is-prose", box.textContent.split("\n").some((line) => line.length > 100));
        }
      }
      mark(box);
    }
  }

  window.addEventListener("DOMContentLoaded", () => {
    document.fonts.ready.then(again);
    document.fonts.addEventListener("loadingdone", again); // code that was folded asks for its font late
    window.addEventListener("resize", again);
    const article = document.querySelector("article"); // the search page has none
    if (article) new MutationObserver(again).observe(article, { childList: true, subtree: true });
    again();
  });
})();

/* On a phone the contents open where the reader is. The theme gives the focus to their first link a moment
   after the click, and so scrolls to their top. */
window.addEventListener("DOMContentLoaded", () => {
  const contents = document.querySelector(".bd-sidebar-primary"), here = contents?.querySelector("nav a.current");
  const opened = document.getElementById("pst-primary-sidebar-checkbox");
  document.querySelector(".primary-toggle")?.addEventListener("click", () => {
    if (!here || !opened.checked || matchMedia("(min-width: 992px)").matches) return;
    contents.querySelector("a, button").addEventListener("focus", () => {
      here.focus({ preventScroll: true });
      here.scrollIntoView({ block: "center" });
    }, { once: true });
  });
});
