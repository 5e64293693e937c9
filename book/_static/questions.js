/* Questions that a reader answers before the answer is shown: "Predict", above what the next cells show, and
   "Check yourself". A page holds each as plain text, a paragraph with choices and a folded answer:

     <div class="question" id="q-name">    paragraph, <ol> of choices,
     <details>                             <ol> with a reply to each choice; the right one's begins **Right.**

   Without choices the reader types a number; the answer's first bold text is the right one, and a list
   below it replies to wrong ones, each by the number with which its reply begins. */

(() => {
  // {"answers": {"q-name": {said, sure, and for work.js: right, day, page, text}}, "open": true}
  const KEY = "peft-book-questions";
  const ROOT = new URL(document.documentElement.dataset.content_root ?? "./", location.href);
  const PAGE = new URL(location.pathname, location.href).href.slice(ROOT.href.length);
  const CLOSE = 0.02; // how far a number may be off, as a share of the right one; or data-within

  let unkept = null; // where a browser keeps nothing

  /** What this browser has kept: the answers, by a question's name, and whether nothing is covered. */
  function read() {
    let kept;
    try {
      kept = JSON.parse(unkept ?? localStorage.getItem(KEY) ?? "{}");
    } catch {
      kept = {};
    }
    const fits = ([, one]) => typeof one?.said === "string" && typeof one.sure === "boolean";
    const answers = Object.entries(kept?.answers ?? {});
    return { answers: new Map(answers.filter(fits)), open: kept?.open === true, kept,
      others: answers.filter((one) => !fits(one)) }; // which another edition may know
  }

  /** Changes what is kept, as another tab may have left it. */
  function change(edit) {
    const kept = read();
    edit(kept);
    unkept = JSON.stringify({ ...kept.kept, open: kept.open,
      answers: Object.fromEntries([...kept.others, ...kept.answers]) });
    try {
      localStorage.setItem(KEY, unkept);
      unkept = null;
    } catch {
      // then it holds until the page is left
    }
  }

  function make(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const button = (text, attributes) => make("button",
    { type: "button", class: "btn btn-sm btn-outline-secondary", ...attributes }, text);

  /** Moves what an element shows into a <span>, without the paragraphs around it. */
  function inline(element) {
    const span = make("span");
    for (const node of [...element.childNodes]) {
      if (node.nodeName === "P") span.append(...node.childNodes);
      else span.append(node);
    }
    return span;
  }

  /** The number that a text begins with or, of a reader's, is: 81,920 or 8e4 or 1/4 or 12 %; else NaN. */
  function number(text, whole = false) {
    const plain = text.trim().replaceAll("−", "-").replace(/[\s_](?=\d{3}(?!\d))/g, "");
    const found = /^[-+]?(\d{1,3}(?:,\d{3})+(?!\d)|\d+)?((?:[.,]\d+)?)((?:e[-+]?\d+)?)(?:\/(\d+))?/i.exec(plain);
    if (!/\d/.test(found[0]) || (whole && !/^\s*[%×]?$/.test(plain.slice(found[0].length)))) return NaN;
    const [, integer = "0", fraction, power, divisor = "1"] = found;
    const size = Number(integer.replaceAll(",", "") + fraction.replace(",", ".") + power) / divisor;
    return plain.startsWith("-") ? -size : size;
  }

  /** What stands in a question's markup; null if that is not one. */
  function parts(box) {
    const text = box.querySelector(":scope > p");
    const choices = box.querySelector(":scope > ol");
    const details = box.querySelector(":scope > details");
    if (!text || !details) return null;
    const replies = [...details.querySelectorAll(`:scope > ${choices ? "ol" : "ul"} > li`)];
    if (!choices) {
      const answer = details.querySelector(":scope > p strong");
      return answer && { text, details, replies, answer };
    }
    const right = replies.findIndex((reply) => reply.querySelector("strong")?.textContent === "Right.");
    return right < 0 || replies.length !== choices.children.length ? null
      : { text, choices, details, replies, right };
  }

  class Question {
    constructor(box, found, changed) {
      Object.assign(this, found, { box, changed });
      this.covers = covered(box).map(cover);
      this.asks = found.text.textContent.replace(/\s+/g, " ").trim();
      this.verdict = make("div", { class: "question-verdict", role: "status" });
      this.sure = button("I am sure", { type: "submit" });
      this.guess = button("It is a guess", { type: "submit" });
      this.again = button("Ask me again");
      const form = make("form", {}, this.fields(),
        make("div", { class: "question-buttons" }, this.sure, this.guess, this.again), this.verdict);
      box.prepend(form);
      this.text.remove();
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.commit(event.submitter !== this.guess);
      });
      this.again.addEventListener("click", () => {
        change(({ answers }) => answers.delete(box.id));
        form.reset();
        this.changed();
        (this.input ?? this.radios[0]).focus();
      });
      box.classList.add("is-asked");
    }

    /** The fieldset: the question is its legend. */
    fields() {
      const legend = make("legend", {}, inline(this.text));
      if (!this.choices) {
        this.input = make("input", { type: "text", autocomplete: "off", required: "" });
        this.radios = [];
        return make("fieldset", {}, legend, make("label", {}, "Your number ", this.input));
      }
      this.radios = [...this.choices.children].map((choice, index) => {
        const radio = make("input", { type: "radio", name: this.box.id, value: index + 1, required: "" });
        choice.append(make("label", {}, radio, inline(choice)));
        return radio;
      });
      return make("fieldset", {}, legend, this.choices);
    }

    commit(sure) {
      const said = (this.input ?? this.radios.find((radio) => radio.checked)).value;
      if (this.input && Number.isNaN(number(said, true))) {
        this.verdict.replaceChildren("That is no number I can read. Write it like 81,920 or 0.25 or 1/4.");
        return;
      }
      change(({ answers }) => answers.set(this.box.id, { said, sure, right: this.judge(said) === null,
        day: new Date().toISOString().slice(0, 10), page: PAGE, text: this.asks.slice(0, 120) }));
      this.changed();
      this.again.focus();
    }

    /** What to reply to a wrong answer, [] if nothing is known about it; null to the right one. */
    judge(said) {
      if (this.choices) {
        const index = Number(said) - 1;
        return index === this.right ? null : [this.replies[index]];
      }
      const within = Number(this.box.dataset.within ?? CLOSE);
      const near = (target) => Math.abs(number(said, true) - target) <= within * Math.abs(target) + 1e-12;
      if (near(number(this.answer.textContent))) return null;
      const known = this.replies.find((reply) => near(number(reply.textContent)));
      return known ? [known] : [];
    }

    /** What the reader has said to this question, if it still fits. */
    given(answers) {
      const one = answers.get(this.box.id);
      const fits = one && (this.input ? !Number.isNaN(number(one.said, true))
        : this.radios.some(({ value }) => value === one.said));
      return fits ? { ...one, right: this.judge(one.said) === null } : undefined;
    }

    /** Shows the question as it stands: open, or answered as the record says. */
    show({ answers, open }) {
      const given = this.given(answers);
      for (const radio of this.radios) {
        if (given) radio.checked = radio.value === given.said;
        radio.disabled = Boolean(given);
        radio.closest("li").classList.toggle("is-right", Boolean(given) && Number(radio.value) === this.right + 1);
      }
      if (this.input) {
        if (given) this.input.value = given.said;
        this.input.readOnly = Boolean(given);
      }
      this.sure.hidden = this.guess.hidden = Boolean(given);
      this.again.hidden = !given;
      for (const show of this.covers) show(!given && !open);
      this.verdict.replaceChildren(...(given ? this.words(given.said) : []));
      this.box.dataset.verdict = given ? given.right : ""; // the colour of the edge
    }

    words(said) {
      const copy = (reply) => make("p", {}, inline(reply.cloneNode(true)));
      const replies = this.judge(said);
      const right = this.choices ? [copy(this.replies[this.right])]
        : [...this.details.querySelectorAll(":scope > p")].map((text) => text.cloneNode(true));
      if (replies === null) {
        if (!this.choices) right[0].prepend(make("strong", {}, "Right."), " ");
        return right;
      }
      const wrong = make("p", {}, make("strong", {}, "Not so."));
      if (replies.length) wrong.append(" ", inline(replies[0].cloneNode(true)));
      else wrong.append(` You said ${said}.`);
      if (this.choices) right[0].querySelector("strong").textContent = `Right is ${this.right + 1}.`;
      return [wrong, ...right];
    }
  }

  /** The outputs that answer a prediction: those of the cells that follow it, up to the next prose. */
  function covered(box) {
    const outputs = [];
    if (!box.classList.contains("predict")) return outputs;
    let next = (box.closest(".cell") ?? box).nextElementSibling;
    for (; next?.matches(".cell") && !next.querySelector("script, .question"); next = next.nextElementSibling) {
      outputs.push(...next.querySelectorAll(":scope > .cell_output"));
    }
    return outputs;
  }

  /** Hides an output at its place, so that nothing moves, behind a button that shows it. */
  function cover(output) {
    const opener = button("Guess first, above, or show it now");
    const show = (hidden) => {
      output.classList.toggle("is-covered", hidden);
      if (hidden) output.append(opener);
      else opener.remove();
    };
    opener.classList.add("question-cover");
    opener.addEventListener("click", () => show(false));
    return show;
  }

  /** The line at the page's end: how many were right, and whether being sure meant anything. */
  function scoreLine(questions, changed) {
    const words = make("p", { role: "status" });
    const forget = button("Ask me all again");
    const box = make("input", { type: "checkbox" });
    forget.addEventListener("click", () => {
      change(({ answers }) => questions.forEach(({ box: { id } }) => answers.delete(id)));
      for (const question of questions) question.box.querySelector("form").reset();
      changed();
    });
    box.addEventListener("change", () => {
      change((kept) => { kept.open = !box.checked; });
      changed();
    });
    const controls = make("div", { class: "question-buttons" }, forget);
    if (questions.some(({ covers }) => covers.length)) {
      controls.append(make("label", {}, box, " Cover results until I have guessed"));
    }
    const line = make("section", { class: "question-score", "aria-label": "Your answers" }, words, controls);
    function show({ answers, open }) {
      const given = questions.map((question) => question.given(answers)).filter(Boolean);
      const share = (some) => `${some.filter(({ right }) => right).length} of ${some.length}`;
      const said = [`${given.length} of this page's ${questions.length} questions answered.`];
      if (given.length) said.push(`${share(given)} right`);
      const sure = given.filter((one) => one.sure);
      const guessed = given.filter((one) => !one.sure);
      if (sure.length && guessed.length) {
        said[1] += `: ${share(sure)} when you were sure, ${share(guessed)} when you guessed`;
      }
      if (given.length) said[1] += ". This browser keeps it; nothing is sent.";
      words.textContent = said.join(" ");
      forget.hidden = !given.length;
      box.checked = !open;
    }
    return { line, show };
  }

  function start() {
    const shown = [];
    const changed = () => {
      const kept = read();
      for (const one of shown) one.show(kept);
    };
    for (const box of document.querySelectorAll("article .question[id]")) {
      const found = parts(box);
      if (found) shown.push(new Question(box, found, changed));
    }
    if (!shown.length) return;
    const score = scoreLine([...shown], changed);
    const article = document.querySelector("article");
    (article.querySelector(":scope > section") ?? article).append(score.line);
    shown.push(score);
    changed();
    window.addEventListener("storage", ({ key }) => { if (key === KEY || key === null) changed(); });

    const folded = () => document.querySelectorAll(".question > details:not([open])");
    let opened = [];
    window.addEventListener("beforeprint", () => {
      opened = [...folded()];
      for (const details of opened) details.open = true;
    });
    window.addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
  }

  document.addEventListener("DOMContentLoaded", start);
})();
