/* What the book needs of Bootstrap, whose script is 82 kB: the menus in a page's header, the button that
   leads back to the top, and the mark at the section of the contents that is being read. */

document.addEventListener("DOMContentLoaded", () => {
  const toggles = [...document.querySelectorAll('[data-bs-toggle="dropdown"]')];

  function open(toggle, on) {
    toggle.setAttribute("aria-expanded", on);
    for (const part of [toggle, toggle.nextElementSibling]) part.classList.toggle("show", on);
  }

  for (const toggle of toggles) {
    const items = [...toggle.nextElementSibling.querySelectorAll(".dropdown-item")];
    toggle.addEventListener("click", () => open(toggle, !toggle.classList.contains("show")));
    toggle.parentElement.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && toggle.classList.contains("show")) {
        open(toggle, false);
        toggle.focus();
      }
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      open(toggle, true);
      const now = items.indexOf(document.activeElement);
      const next = now < 0 ? (step > 0 ? 0 : items.length - 1) : now + step;
      items[next]?.focus();
    });
    toggle.parentElement.addEventListener("focusout", ({ relatedTarget }) => {
      if (relatedTarget && !toggle.parentElement.contains(relatedTarget)) open(toggle, false);
    });
  }
  document.addEventListener("click", ({ target }) => {
    for (const toggle of toggles) {
      if (!toggle.contains(target)) open(toggle, false);
    }
  });

  const links = [...document.querySelectorAll('.bd-toc-nav a[href^="#"]')];
  const sections = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  const up = document.getElementById("pst-back-to-top");
  up?.addEventListener("click", () => window.scrollTo(0, 0));
  let before = window.scrollY, waits = false;

  function look() {
    waits = false;
    if (up) up.style.display = window.scrollY < before && window.scrollY > window.innerHeight / 2 ? "block" : "none";
    before = window.scrollY;
    const tops = sections.map((section) => section?.getBoundingClientRect().top ?? Infinity);
    const here = links[tops.findLastIndex((top) => top < window.innerHeight * 0.4)];
    for (const link of links) {
      const entry = link.closest("li");
      entry.classList.toggle("active", entry.contains(here ?? null));
      link.classList.toggle("active", entry.contains(here ?? null));
    }
  }

  window.addEventListener("scroll", () => {
    if (!waits) requestAnimationFrame(look);
    waits = true;
  }, { passive: true });
  look();
});
