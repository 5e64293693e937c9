/* A button on every block of code that copies it. */

document.addEventListener("DOMContentLoaded", () => {
  const ICONS = { copy: "M8 8h12v12H8zM16 8V4H4v12h4", done: "M5 12l5 5L20 7" };

  async function copy(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const box = document.body.appendChild(document.createElement("textarea"));  // an address without https
    box.value = text;
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    if (!done) throw new Error("the browser does not copy");
  }

  for (const code of document.querySelectorAll("div.highlight pre")) {
    const button = document.createElement("button");
    const say = (words, icon) => {
      button.ariaLabel = button.title = words;
      button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[icon]}"/></svg>`;
    };
    button.type = "button";
    button.className = "copybtn";
    say("Copy", "copy");
    button.addEventListener("click", () => {
      copy(code.innerText).then(() => say("Copied", "done"), () => say("Your browser does not allow it", "copy"));
      setTimeout(() => say("Copy", "copy"), 2000);
    });
    code.after(button);
  }
});
