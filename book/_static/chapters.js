/* How far this reader is, on the cards of the front page. What questions.js and progress.js have kept in this
   browser is counted here, and changed by neither; without it the cards say how much there is to do. */

(() => {
  const KEYS = { questions: "peft-book-questions", exercises: "peft-book-progress" };

  function read(key) {
    try {
      const kept = JSON.parse(localStorage.getItem(key));
      return kept && typeof kept === "object" ? kept : {};
    } catch {
      return {}; // damaged, or a browser that keeps nothing
    }
  }

  function fill(place, done, of, words) {
    place.textContent = done ? `${done} of ${of} ${words}` : place.dataset.before;
    place.parentElement.querySelector(".chapter-bar").style.setProperty("--done", `${(100 * done) / of}%`);
  }

  function show() {
    const answers = read(KEYS.questions).answers ?? {};
    for (const place of document.querySelectorAll("[data-questions]")) {
      place.dataset.before ??= place.textContent;
      const names = place.dataset.questions.split(" ");
      fill(place, names.filter((name) => typeof answers[name]?.said === "string").length, names.length, "answered");
    }
    const passed = read(KEYS.exercises);
    for (const place of document.querySelectorAll("[data-exercises]")) {
      place.dataset.before ??= place.textContent;
      const boxes = [...place.closest(".chapter").querySelectorAll("[data-exercise]")];
      for (const box of boxes) box.classList.toggle("is-done", /^\d{4}-\d\d-\d\d$/.test(passed[box.dataset.exercise]));
      fill(place, boxes.filter((box) => box.classList.contains("is-done")).length, boxes.length, "passed");
    }
  }

  show();
  addEventListener("storage", show); // another tab has noted something
  addEventListener("pageshow", show); // the reader comes back to a page that the browser kept
})();
