/* Which exercises are done, on the page of the exercises and in the contents: remembered by this browser, sent nowhere.
   What is exported and imported is the file that checks.remember() writes: {"2": "2026-11-24"}. */

(() => {
  const KEY = "peft-book-progress";
  const TAKEN = "peft-book-progress-taken";  // what came from notebooks: unticked, it stays so
  const NOTEBOOKS = "peft-book contents";  // the files of the notebooks run in this browser

  // From here to the end of days() python.js has the same, through tools/in_page/build.py.
  /** Whether this is a day of the calendar, as 2026-11-24. */
  function isDay(text) {
    const time = typeof text === "string" && /^\d{4}-\d\d-\d\d$/.test(text) && Date.parse(text);
    return Number.isFinite(time) && new Date(time).toISOString().startsWith(text);
  }

  /** The days in a list, by number of the exercise; whatever else it holds does not count. */
  function days(list) {
    const entries = list && typeof list === "object" && !Array.isArray(list)
      ? Object.entries(list) : [];
    return Object.fromEntries(entries.filter(([number, day]) => /^[1-9]\d?$/.test(number) && isDay(day)));
  }
  // To here.

  function read(key = KEY) {
    try {
      return days(JSON.parse(localStorage.getItem(key) || "{}"));
    } catch {
      return {};
    }
  }

  /** The file that checks.remember() has written in this browser's own Python; {} without one. */
  async function fromNotebooks() {
    try {
      const there = await indexedDB.databases();  // to open one that is not there would make it
      if (!there.some(({ name }) => name === NOTEBOOKS)) return {};
      const answer = (request) => new Promise((done, fail) => {
        request.onsuccess = () => done(request.result);
        request.onerror = () => fail(request.error);
      });
      const database = await answer(indexedDB.open(NOTEBOOKS));
      const files = database.objectStoreNames.contains("files")
        ? database.transaction("files").objectStore("files") : null;
      const file = files && await answer(files.get("peft-book-progress.json"));
      database.close();
      // Written under another name first, as whole files are, it counts as bytes there.
      const text = file?.format === "base64" ? atob(file.content) : file?.content;
      return text ? days(JSON.parse(text)) : {}; // any cell writes that file
    } catch {
      return {};
    }
  }

  function write(done, key = KEY) {
    try {
      localStorage.setItem(key, JSON.stringify(done));
      window.dispatchEvent(new Event(key)); // "storage" is told to other tabs alone
      return true;
    } catch {
      return false; // a browser that keeps nothing: the boxes work until the page is left
    }
  }

  function today() {
    const now = new Date();
    return [now.getFullYear(), now.getMonth() + 1, now.getDate()]
      .map((part) => String(part).padStart(2, "0")).join("-");
  }

  function start(place) {
    const titles = JSON.parse(place.dataset.exercises);
    let done = read(), unkept = false;
    place.innerHTML = "";
    const list = place.appendChild(document.createElement("ul"));
    list.style.listStyle = "none";
    list.style.paddingLeft = "0";
    const status = document.createElement("p");
    status.setAttribute("role", "status");
    const boxes = titles.map((title, index) => {
      const number = String(index + 1);
      const label = list.appendChild(document.createElement("li"))
        .appendChild(document.createElement("label"));
      const box = label.appendChild(document.createElement("input"));
      box.type = "checkbox";
      box.dataset.exercise = number;
      box.addEventListener("change", () => {
        done = reread(); // another tab may have noted more since
        if (box.checked) done[number] = today();
        else delete done[number];
        keep();
      });
      label.append(` ${number}. ${title} `);
      const day = label.appendChild(document.createElement("small"));
      return { number, box, day };
    });

    function show(message = "") {
      for (const { number, box, day } of boxes) {
        box.checked = number in done;
        day.textContent = number in done ? `done ${done[number]}` : "";
      }
      const count = boxes.filter(({ box }) => box.checked).length;
      status.textContent = `${count} of ${boxes.length} done. ${message}`;
    }

    /** What is kept by now; what was here before, in a browser that keeps nothing. */
    function reread() {
      return unkept ? done : read();
    }

    function keep(message = "") {
      const kept = write(done);
      unkept = !kept;
      show(kept ? message : "This browser keeps nothing: export the list to save it.");
    }

    /** Adds what a list of another origin names; how many exercises those are. */
    function take(list, but = {}) {
      done = reread();
      const entries = Object.entries(days(list)).filter(([number]) => !(number in but)
        && boxes.some((box) => box.number === number));
      for (const [number, day] of entries) done[number] ||= day;
      return entries.length;
    }

    function button(text, action) {
      const made = buttons.appendChild(document.createElement("button"));
      made.type = "button";
      made.textContent = text;
      made.className = "btn btn-sm btn-outline-secondary";
      made.style.marginRight = "0.5em";
      made.addEventListener("click", action);
    }

    const buttons = place.appendChild(document.createElement("p"));
    button("Export", () => {
      const link = document.createElement("a");
      const text = `${JSON.stringify(done, null, 1)}\n`;
      link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      link.download = "peft-book-progress.json";
      link.click();
      URL.revokeObjectURL(link.href);
    });
    const file = document.createElement("input");
    file.type = "file";
    file.accept = ".json,application/json";
    file.hidden = true;
    buttons.append(file);
    file.addEventListener("change", async () => {
      try {
        const count = take(JSON.parse(await file.files[0].text()));
        keep(count ? `Read ${count} from the file.` : "That file names no exercise of this list.");
      } catch {
        show("That file is not an exported list.");
      }
      file.value = "";
    });
    button("Import", () => file.click());
    button("Clear", () => {
      done = {};
      keep();
    });
    place.append(status);
    show();
    window.addEventListener("storage", ({ key }) => {
      if (key !== KEY && key !== null) return;
      done = read();
      show();
    });
    window.addEventListener("pageshow", ({ persisted }) => { // back to a page that the browser has kept
      if (!persisted) return;
      done = reread();
      show();
    });
    fromNotebooks().then((noted) => {
      const taken = read(TAKEN);
      const count = take(noted, taken);
      if (count && write({ ...taken, ...noted }, TAKEN)) keep(`${count} noted by notebooks run here.`);
    });
  }

  /** Say at the links to the exercises, in the contents beside the page, which are done. */
  function mark() {
    const done = read();
    for (const link of document.querySelectorAll(".bd-links a[href]")) {
      const number = link.pathname.match(/\/exercises\/ex(\d+)-[^/]*$/)?.[1];
      if (!number) continue;
      let sign = link.querySelector(".exercise-done");
      if (sign && !(number in done)) sign.remove();
      if (sign || !(number in done)) continue;
      sign = link.appendChild(document.createElement("span"));
      sign.className = "exercise-done";
      sign.textContent = " ✓ done";
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const place = document.getElementById("exercise-progress");
    if (place) start(place);
    mark();
    for (const told of ["storage", "pageshow", KEY]) window.addEventListener(told, mark);
  });
})();
