// Helpers of every widget in explorer.py, which joins this file and one widget's file into one
// module: a notebook's saved state must hold all of a widget's code, so nothing can be imported.
//
// Two rules. Text enters the page as text nodes only, never as HTML. Whatever a picture shows is
// also there as text.

const wholeNumber = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const threeDigits = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
const SCALE = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
const BYTES = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "bytes"]];

/** 4194304 -> "4,194,304" */
function formatCount(value) {
  return wholeNumber.format(value);
}

/** 4194304 -> "4.19 M" */
function formatShort(value) {
  const [size, unit] = SCALE.find(([size]) => value >= size) ?? [1, ""];
  return `${threeDigits.format(value / size)}\u00a0${unit}`.trim();
}

/** 8388608 -> "8.39 MB": decimal units, as disks and networks count. */
function formatBytes(value) {
  const [size, unit] = BYTES.find(([size]) => value >= size) ?? [1, "bytes"];
  return `${threeDigits.format(value / size)}\u00a0${unit}`;
}

/** 0.001953125 -> "0.195 %" */
function formatShare(ratio) {
  return `${threeDigits.format(100 * ratio)}\u00a0%`;
}

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "polyline", "title"]);

/** An element with attributes, listeners ("onInput") and children; null children are left out. */
function h(tag, attributes, ...children) {
  const node = SVG_TAGS.has(tag)
    ? document.createElementNS(SVG, tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2).toLowerCase(), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set text only where it changed: an unchanged node costs no layout. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * A widget's outermost element. It keeps plain keys to itself: JupyterLab would take the arrows for
 * its shortcuts (the attribute) and the focus for its cell (the event), a theme might turn the page.
 */
function widgetRoot(name, ...children) {
  return h("section", {
    class: "peft-widget", "aria-label": name, "data-lm-suppress-shortcuts": "true",
    onKeydown: (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    },
  }, ...children);
}

/** A prefix for ids that no other view on the page has, whichever module made it. */
function uniquePrefix() {
  globalThis.peftWidgetCount = (globalThis.peftWidgetCount ?? 0) + 1;
  return `peft-widget-${globalThis.peftWidgetCount}`;
}

/** Sets some of a model's values: changer(model)({ rank: 4 }). */
function changer(model) {
  return (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
}

/** The large figure at a widget's top and the sentence after it; screen readers hear an announcer. */
function largeFigure() {
  const [figure, sentence] = [h("b", {}), h("span", {})];
  const headline = h("p", { class: "pw-headline", "aria-hidden": "true" }, figure, sentence);
  return { headline, figure, sentence };
}

/** Index of the entry of an increasing list that lies nearest to a value: it, or else by ratio. */
function nearest(values, value) {
  let best = Math.max(0, values.indexOf(value));
  values.forEach((candidate, index) => {
    const distance = Math.abs(Math.log(candidate / value));
    if (distance < Math.abs(Math.log(values[best] / value))) best = index;
  });
  return best;
}

/** Round values that cover a range in about four steps. */
function ticks(low, high) {
  const raw = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

/** The colour of a method, from Python; the style sheet brightens it on dark pages. */
function colour(node, method) {
  node.style.setProperty("--method", method);
  return node;
}

/**
 * A labelled native slider over a list of allowed values.
 *
 * The slider's own value is the position in the list, so unevenly spaced values such as 1, 2, 4, 8
 * stand at even distances; readers and screen readers meet the value itself, as `write` has it.
 */
function slider({ id, name, label, values, say, onMove, write = formatCount }) {
  const output = h("span", { class: "pw-value", "aria-hidden": "true" });
  const low = h("span", {});
  const middle = h("span", { class: "pw-middle" });
  const high = h("span", {});
  const input = h("input", {
    type: "range", id, step: 1, min: 0, "data-name": name, class: "pw-range",
    onInput: () => onMove(node.values[input.valueAsNumber]),
  });
  const node = h("div", { class: "pw-slider" },
    h("label", { for: id }, label), output, input,
    h("span", { class: "pw-ends", "aria-hidden": "true" }, low, middle, high));

  /** Replace the allowed values (the head counts of a new width, say). */
  node.allow = (allowed) => {
    node.values = allowed;
    input.max = allowed.length - 1;
    input.disabled = allowed.length < 2;
    setText(low, write(allowed[0]));
    setText(high, write(allowed[allowed.length - 1]));
  };
  /** Show a value, also one that Python set between two positions, and what it amounts to. */
  node.show = (value, amount = "") => {
    setText(middle, amount);
    const index = nearest(node.values, value);
    if (input.valueAsNumber !== index) input.value = index;
    const last = node.values.length - 1;
    input.style.setProperty("--filled", `${last ? (100 * index) / last : 0}%`);
    input.dataset.value = value;
    setText(output, write(value));
    const text = say ? say(value) : write(value);
    if (input.getAttribute("aria-valuetext") !== text) input.setAttribute("aria-valuetext", text);
  };
  node.allow(values);
  return node;
}

/** A labelled native drop-down list of [value, text] pairs. */
function dropDown({ id, name, label, options, onPick }) {
  const select = h("select", {
    id, "data-name": name, class: "pw-select", onChange: () => onPick(select.value),
  }, options.map(([value, text]) => h("option", { value }, text)));
  const node = h("div", { class: "pw-field" }, h("label", { for: id }, label), select);
  node.show = (value) => { if (select.value !== value) select.value = value; };
  node.select = select;
  return node;
}

/** Radio buttons that look like one bar. */
function choice({ prefix, name, legend, options, onPick }) {
  const inputs = options.map(([value, text], index) => {
    const id = `${prefix}-${name}-${index}`;
    const input = h("input", {
      type: "radio", id, name: `${prefix}-${name}`, value, "data-name": name,
      onChange: () => onPick(value),
    });
    return [input, h("label", { for: id }, text)];
  });
  const node = h("fieldset", { class: "pw-choice" },
    h("legend", {}, legend), h("div", {}, inputs.flat()));
  node.show = (value) => inputs.forEach(([input]) => { input.checked = input.value === value; });
  return node;
}

/** One polite announcement once the reader's hand rests, not one for every step on the way. */
function announcer() {
  const node = h("output", { class: "pw-unseen" });
  let timer = null;
  node.say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => setText(node, text), 400);
  };
  return node;
}

/** Draw at most once per frame, however many changes arrive meanwhile. */
function oncePerFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
}
