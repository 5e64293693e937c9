/* What a cell's run shows, as the page's own outputs look. */

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

const WIDGET = "application/vnd.jupyter.widget-view+json";
const LIVE = 2_000_000;  // characters of a widget's values; the largest of the book's has fewer

const TAGS = new Set(`a b br caption code col colgroup dd details div dl dt em h1 h2 h3 h4 h5 h6 hr i img
  kbd li ol p pre s small span strong sub summary sup table tbody td tfoot th thead tr u ul`.split(/\s+/));
const ATTRIBUTES = new Set(`alt class colspan dir height lang open role rowspan scope start style title
  width`.split(/\s+/));

/** Whether an attribute of a cell's HTML runs nothing, and leads, where a reader clicks, to a page. */
function harmless({ localName }, { name, value }) {
  if (localName === "a" && name === "href") {
    const to = URL.canParse(value, document.baseURI) && new URL(value, document.baseURI);
    return ["http:", "https:"].includes(to.protocol);
  }
  if (localName === "img" && name === "src") return /^data:image\//i.test(value);
  return ATTRIBUTES.has(name) || name.startsWith("aria-");
}

/**
 * A cell's HTML, of which all is left out that runs, frames, asks, or leads away by itself: the cell may
 * be a stranger's, in a file of edits, and run because the reader ran one below it.
 */
function markup(text) {
  const { content } = Object.assign(document.createElement("template"), { innerHTML: text });
  for (const node of content.querySelectorAll("*")) {
    const { localName } = node;
    if (!TAGS.has(localName) || !(node instanceof HTMLElement)) {
      node.replaceWith(["script", "style"].includes(localName) ? "" : `[<${localName}> is left out]`);
    } else {
      for (const one of [...node.attributes]) if (!harmless(node, one)) node.removeAttributeNode(one);
    }
  }
  return content;
}

/** The little Markdown that the course's cells make: paragraphs, code, emphasis, formulas. */
function markdown(text) {
  const box = element("div", "text_markdown");
  const inline = (line) => line.replace(/[&<>]/g, (sign) => `&#${sign.charCodeAt(0)};`)
    .replace(/`([^`]+)`/g, "<code>$1</code>").replace(/\*\*(.+?)\*\*/g, "<strong>$1</strong>")
    .replace(/\*(\S.*?)\*/g, "<em>$1</em>").replace(/\$([^$]+)\$/g, '<span class="math">\\($1\\)</span>');
  for (const [at, part] of text.split(/^```.*$/m).entries()) {
    if (at % 2) {
      box.append(element("pre", "", part.replace(/^\n|\n$/g, "")));
    } else {
      for (const block of part.split(/\n\s*\n/).filter((some) => some.trim())) {
        box.append(element("p"));
        box.lastChild.innerHTML = inline(block);
      }
    }
  }
  window.bookFormulas?.(box);
  return box;
}

/** What a terminal shows of a text: a return begins the line again, as progress bars do; colours are left out. */
const terminal = (text) => text.replace(/\x1b\[[\d;]*[a-z]/gi, "").replace(/\r+\n/g, "\n")
  .replace(/[^\n]*\r(?=[^\n])/g, "");

/** A formula, as IPython's Math and Latex have it between dollars. */
function formula(text) {
  const box = element("div", "text_latex"), tex = text.trim().replace(/^\$+|\$+$/g, "");
  box.append(element("span", "math", `\\[${tex}\\]`));
  window.bookFormulas?.(box);
  return box;
}

function picture(source, metadata, printed) {
  const image = element("img");
  image.src = source;
  image.alt = printed ? `Drawn by your run. The printed figure: ${printed}` : "A figure drawn by your run";
  if (metadata?.width) image.width = metadata.width;
  return image;
}

function shown({ data, metadata }, printedAlt) {
  const box = element("div", "output");
  if (data["image/png"]) {
    box.append(picture(`data:image/png;base64,${data["image/png"]}`, metadata["image/png"], printedAlt));
  } else if (data["image/svg+xml"]) {
    const svg = encodeURIComponent(data["image/svg+xml"]);
    box.append(picture(`data:image/svg+xml,${svg}`, null, printedAlt));
  } else if (data["text/html"]) {
    box.classList.add("text_html");
    box.append(markup(data["text/html"]));
    window.bookFormulas?.(box);
  } else if (data["text/markdown"]) {
    box.append(markdown(data["text/markdown"]));
  } else if (data["text/latex"]) {
    box.append(formula(data["text/latex"]));
  } else {
    box.append(element("pre", "", data["text/plain"] ?? ""));
  }
  return box;
}

/**
 * A widget with the values that a run has set, or null. They are only shown: what shows them is the code of
 * a widget of this page, for the run may be of a stranger's cell.
 */
function live(set) {
  const { VIEWS, state, draw } = window.bookWidgets ?? {};
  const printed = VIEWS && [...document.querySelectorAll(VIEWS)]
    .find(({ dataset }) => set?._anywidget_id && dataset.kind === set._anywidget_id);
  if (!printed || JSON.stringify(set).length > LIVE) return null;
  const box = element("div", "output in-page-live");
  state(printed).then((values) => draw(box, { ...values, ...set, _esm: values._esm, _css: values._css }))
    .catch((error) => box.append(element("p", "in-page-note", `The widget cannot show this: ${error.message}`)));
  return box;
}

/** A place for the outputs of one run of a cell; `edited`: it or one above is not as the book has it. */
export class Outputs {
  constructor(printed, known, edited) {
    this.edited = edited;
    this.box = element("div", "cell_output in-page-output");
    const figure = printed?.querySelector("img[alt], .drawn");
    this.alt = figure?.alt ?? figure?.ariaLabel;
    this.known = new Set(known.markdown);
    this.widget = Boolean(printed?.querySelector(window.bookWidgets?.VIEWS ?? "widget"));
    this.keepsPrinted = false;  // a live widget, or text that is already there, and better rendered
    this.waits = false;
    this.named = new Map();
  }

  add(output) {
    if (output.output_type === "clear") {
      if (output.wait) this.waits = true;
      else this.box.replaceChildren();
      return;
    }
    if (this.waits) this.box.replaceChildren();
    this.waits = false;
    if (output.output_type === "stream") {
      const kind = `stream-${output.name}`;
      let last = this.box.lastElementChild;
      if (!last?.classList.contains(kind)) {
        last = this.box.appendChild(element("div", `output stream ${kind}`));
        last.append(element("pre"));
      }
      const pre = last.firstChild, before = pre.lastChild?.data ?? "";
      if (/[\r\x1b]/.test(output.text) || /[\r\x1b][^\n]{0,9}$/.test(before)) {
        pre.textContent = terminal(pre.textContent + output.text);
      } else pre.append(output.text);
      return;
    }
    const { data, id } = output;
    const made = this.edited && data[WIDGET] && live(data[WIDGET].state);
    const box = made || shown(output, this.alt);
    if (this.known.has(data["text/markdown"])) box.classList.add("in-page-same");
    if (data[WIDGET] && !made) {
      this.keepsPrinted ||= this.widget;
      box.prepend(element("p", "in-page-note", (this.widget ? "The live widget above stays as the book has it."
        : "The page shows the book’s own widgets only.") + " As text, your run made this:"));
    }
    const earlier = id && this.named.get(id);
    if (earlier?.isConnected) earlier.replaceWith(box);
    else if (output.output_type !== "update") this.box.append(box);
    if (id) this.named.set(id, box);
  }

  fail({ name, message, line, text, traceback }, goTo) {
    const box = this.box.appendChild(element("div", "in-page-error"));
    box.append(element("p"));
    box.firstChild.append(element("strong", "", name), message ? `: ${message}` : "");
    if (line) {
      const place = box.appendChild(element("p", "", `Line ${line} of this cell: `));
      place.append(element("code", "", text));
      if (goTo) {
        const button = element("button", "btn btn-sm btn-outline-secondary", `Go to line ${line}`);
        button.type = "button";
        button.addEventListener("click", () => goTo(line));
        place.append(" ", button);
      }
    }
    const all = box.appendChild(element("details"));
    all.append(element("summary", "", "Every step to the error"), element("pre", "", traceback));
  }

  /**
   * Text that is already there, and nothing else: the page's own rendering of it stays. And whether
   * wide boxes scroll is known only now: let the keyboard reach these.
   */
  finish() {
    const same = this.box.querySelectorAll(":scope > .in-page-same");
    if (same.length && same.length === this.box.childElementCount) this.keepsPrinted = true;
    if (this.keepsPrinted) same.forEach((box) => box.remove());
    for (const box of this.box.querySelectorAll("pre, .text_html")) {
      if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    }
  }
}
