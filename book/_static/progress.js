/* Which exercises are done, on the page of the exercises: remembered by this browser, sent nowhere.
   What is exported and imported is the file that checks.remember() writes: {"2": "2026-11-24"}. */

(() => {
  const KEY = "peft-book-progress";

  function read() {
    try {
      const done = JSON.parse(localStorage.getItem(KEY) || "{}");
      return done && typeof done === "object" ? done : {};
    } catch {
      return {};
    }
  }

  function write(done) {
    try {
      localStorage.setItem(KEY, JSON.stringify(done));
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
    let done = read();
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

    function keep(message = "") {
      const kept = write(done);
      show(kept ? message : "This browser keeps nothing: export the list to save it.");
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
        const entries = Object.entries(JSON.parse(await file.files[0].text()))
          .filter(([number, day]) => boxes.some((box) => box.number === number)
            && /^\d{4}-\d\d-\d\d$/.test(day));
        for (const [number, day] of entries) done[number] ||= day;
        keep(`Read ${entries.length} from the file.`);
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
  }

  document.addEventListener("DOMContentLoaded", () => {
    const place = document.getElementById("exercise-progress");
    if (place) start(place);
  });
})();
