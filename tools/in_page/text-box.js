/* A cell's editor where CodeMirror (editor.js) does not load: a text box that indents. */

export const HELP = "Ctrl+Enter runs. Tab indents; press Escape first to leave with Tab.";

export class TextBox {
  /** `settings`: text, label, help (the id of what explains the keys), changed(), run(). */
  constructor(parent, settings) {
    this.settings = settings;
    this.area = parent.appendChild(document.createElement("textarea"));
    Object.assign(this.area, { spellcheck: false, autocapitalize: "off", autocomplete: "off", wrap: "off" });
    this.area.setAttribute("aria-label", settings.label);
    this.area.setAttribute("aria-describedby", settings.help);
    this.area.value = settings.text;
    this.area.addEventListener("input", () => this.changed());
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.shown();
  }

  get text() {
    return this.area.value;
  }

  set text(text) {
    this.area.value = text;
    this.shown();
  }

  /** It is on the page, or its text is another: let it be as high as its text. */
  shown() {
    this.area.rows = Math.max(2, this.text.split("\n").length);
  }

  focus() {
    this.area.focus();
  }

  changed() {
    this.shown();
    this.settings.changed();
  }

  /** Insert as typing does, so that the browser's own undo knows of it. */
  insert(text) {
    if (!document.execCommand("insertText", false, text)) {
      this.area.setRangeText(text, this.area.selectionStart, this.area.selectionEnd, "end");
      this.changed();
    }
  }

  key(event) {
    const { area } = this, leaving = this.leaving;
    if (event.key !== "Shift") this.leaving = event.key === "Escape";
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      this.settings.run();
    } else if (event.key === "Enter") {
      event.preventDefault();
      const line = area.value.slice(0, area.selectionStart).split("\n").pop();
      this.insert(`\n${line.match(/^ */)[0]}${/:\s*(#.*)?$/.test(line) ? "    " : ""}`);
    } else if (event.key === "Tab" && !leaving) {
      event.preventDefault();
      this.indent(event.shiftKey);
    }
  }

  indent(back) {
    const { area } = this;
    const start = area.value.lastIndexOf("\n", area.selectionStart - 1) + 1;
    const lines = area.value.slice(start, area.selectionEnd);
    if (!back && area.selectionStart === area.selectionEnd) {
      this.insert(" ".repeat(4 - (area.selectionStart - start) % 4));
      return;
    }
    const moved = lines.replace(/^.*/gm, back
      ? (line) => line.replace(/^ {1,4}/, "") : (line) => line && `    ${line}`);
    area.setSelectionRange(start, area.selectionEnd);
    if (moved !== lines) this.insert(moved);
    area.setSelectionRange(start, start + moved.length);
  }

  goTo(line) {
    const lines = this.text.split("\n");
    const start = lines.slice(0, line - 1).join("\n").length + (line > 1);
    this.area.focus();
    this.area.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  }
}
