/* The widgets of a page, with no kernel and no manager: anywidget's modules, spoken to directly. The state
   of each, its values and its code, is a file, loaded when the widget comes near the window, or when the
   page is printed by its own button. Until then, and if it fails, its table as text stands in its place. */

window.bookWidgets = (() => {
  const VIEWS = 'script[type="application/vnd.jupyter.widget-view+json"]';
  const states = new Map(), styles = new Set(), shown = new Map();
  let taken = null;

  /** What a state's file calls. */
  const take = (values) => { taken = values; };

  /** The values of a view's widget, from its file. */
  function state({ dataset: { state: address } }) {
    if (!states.has(address)) {
      states.set(address, new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = address;
        script.onload = () => {  // also of a file that is cut off, which calls nothing
          if (taken) done(taken);
          else failed(new Error(`${address} is damaged; load the page again`));
          taken = null;  // it would stand for the next such file
        };
        script.onerror = () => failed(new Error(`${address} cannot be loaded`));
        document.head.append(script);
      }));
    }
    return states.get(address);
  }

  /** A model as anywidget's modules expect it; what they save stays in the page. */
  function modelOf(values) {
    const changed = new EventTarget();
    return {
      get: (name) => values[name],
      set: (name, value) => {
        if (JSON.stringify(values[name]) === JSON.stringify(value)) return;
        values[name] = value;
        changed.dispatchEvent(new Event(`change:${name}`));
      },
      save_changes: () => {},
      on: (name, act) => changed.addEventListener(name, act),
      off: (name, act) => changed.removeEventListener(name, act),
    };
  }

  /** Draws a widget into a box. */
  async function draw(box, values) {
    if (!styles.has(values._css)) {
      styles.add(values._css);
      document.head.append(Object.assign(document.createElement("style"), { textContent: values._css }));
    }
    const address = URL.createObjectURL(new Blob([values._esm], { type: "text/javascript" }));
    try {
      await (await import(address)).default.render({ model: modelOf({ ...values }), el: box });
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  /** Puts a view's widget before its script, once. */
  function show(view) {
    if (!shown.has(view)) {
      const box = document.createElement("div");
      view.before(box);
      shown.set(view, state(view).then((values) => draw(box, values)).catch((error) => {
        box.textContent = `The widget cannot be shown: ${error.message}`;
        console.error(error);
      }));
    }
    return shown.get(view);
  }

  const showAll = () => Promise.all([...document.querySelectorAll(VIEWS)].map(show));

  document.addEventListener("DOMContentLoaded", () => {
    const near = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) {
          near.unobserve(target);
          target.querySelectorAll(VIEWS).forEach(show);
        }
      }
    }, { rootMargin: "50% 0%" });
    for (const view of document.querySelectorAll(VIEWS)) {
      const code = view.closest(".cell")?.querySelector(":scope > .cell_input");
      code?.classList.toggle("is-one-line", !code.textContent.trim().includes("\n"));  // not printed
      near.observe(view.closest(".cell_output") ?? view.parentElement);
    }
  });
  window.addEventListener("beforeprint", showAll);
  return { take, state, draw, showAll, VIEWS };
})();
