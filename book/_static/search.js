/* What the book adds to Sphinx's search: terms of the glossary lead to their definition, each place is told
   once, and each with its excerpt, also when the book is read from disk, where no script may read a page.
   So the build writes the text of every page into a script of its own (tools/search_page.py). */

window.bookSearch = (() => {
  const terms = [], pages = new Map(), asked = new Map(), waiting = new WeakMap();
  const GLOSSARY = "book/glossary";
  const alike = (word) => word.toLowerCase().replace(/[\s-]+/g, " ").replace(/s$/, "").trim();

  /** What the files of the build call. */
  const take = (page, text, places) => pages.set(page, { text, places });
  const define = (all) => terms.push(...all);

  function load(page) {
    if (!asked.has(page)) {
      asked.set(page, new Promise((done) => {
        const src = `_static/search/${page.replaceAll("/", ".")}.js`;
        const script = Object.assign(document.createElement("script"), { src, onload: done, onerror: done });
        document.head.append(script);
      }));
    }
    return asked.get(page);
  }

  /** How well a term answers: 2 in full, 1 in part, else 0. */
  function fits({ names }, query) {
    if (names.some((name) => alike(name) === query)) return 2;
    return Number(names.some((name) => alike(name).includes(query) && query.length >= name.length / 2));
  }

  /**
   * Sphinx's results, [page, title, anchor, description, score, file], the best last, with the glossary's
   * terms before all; a page that has one of its sections there, or itself, is not told a second time.
   */
  function order(results, asked) {
    const query = alike(asked);
    const defined = query ? terms.filter((term) => fits(term, query))
      .sort((one, other) => fits(other, query) - fits(one, query) || one.names[0].length - other.names[0].length)
      .map(({ names, anchor }) => [GLOSSARY, names.join(", "), `#${anchor}`, null, 0, ""]) : [];
    const others = results.toReversed().filter(([page, , anchor]) => !anchor.startsWith("#term-")
      && !(defined.length && page === GLOSSARY && !anchor));
    const seen = new Set(), kept = [];
    for (const one of [...defined, ...others]) {
      const [page, title, anchor] = one, whole = !anchor || !title.includes(" > ") && page !== GLOSSARY;
      if (seen.has(page + (whole ? "" : anchor))) continue;
      seen.add(page).add(page + anchor);
      kept.push(one);
    }
    return kept.reverse();
  }

  /** The words around the first one that is looked for, from the place that a result leads to. */
  function excerpt({ text, places }, anchor, words) {
    const from = places[anchor.slice(1)] ?? 0;
    let part = text.slice(from);
    if (anchor.startsWith("#term-")) {
      part = part.slice(0, part.indexOf("\n") + 1 || undefined);
      if (part.length < 400) return part.trim();
    }
    const lower = part.toLowerCase();
    const at = [...words].map((word) => lower.search(new RegExp(`(?<![\\p{L}\\d])${_escapeRegExp(word)}`, "u")))
      .filter((found) => found >= 0);
    const first = Math.max(0, (at.length ? Math.min(...at) : 0) - 100);
    const start = first ? part.indexOf(" ", first) + 1 : 0;
    const end = part.indexOf(" ", start + 240);
    const said = part.slice(start, end < 0 ? undefined : end).replace(/\s+/g, " ").trim();
    return `${start ? "… " : ""}${said}${end < 0 ? "" : " …"}`;
  }

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        near.unobserve(target);
        waiting.get(target)();
      }
    }
  }, { rootMargin: "50% 0%" });

  /** Puts an excerpt into a result as soon as it comes near the window, and marks the words in it. */
  function tell(item, page, anchor, words, marked) {
    waiting.set(item, async () => {
      await load(page);
      if (!pages.has(page)) return;
      const box = item.appendChild(document.createElement("p"));
      box.className = "context";
      box.textContent = excerpt(pages.get(page), anchor, words);
      if (SPHINX_HIGHLIGHT_ENABLED) marked.forEach((word) => _highlightText(box, word, "highlighted"));
    });
    near.observe(item);
  }

  return { take, define, order, tell };
})();
