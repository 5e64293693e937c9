// The memory explorer: where the memory goes when a real model is fine-tuned.
//
// For the listed models Python counted everything that is multiplied here (accounting.py). Only a
// configuration that a reader pastes is counted in the page, by reading the table of families that
// accounting.py itself reads; a test compares the two on every listed model. Pasted text is data:
// it is parsed as JSON, its numbers are checked, and it enters the page as text only.

const LONGEST_CONFIG = 100_000;

class ConfigError extends Error {}

/** The value of an expression of the table: + - * / ( ) > != over whole numbers and symbols. */
function evaluate(expression, symbols) {
  const tokens = expression.match(/\d+|[A-Za-z_]\w*|!=|[-+*/()>]/g);
  let at = 0;
  const factor = () => {
    const token = tokens[at++];
    if (token === "(") {
      const value = sum();
      at++;
      return value;
    }
    return /^\d/.test(token) ? Number(token) : symbols.get(token);
  };
  const term = () => {
    let value = factor();
    while (tokens[at] === "*" || tokens[at] === "/") {
      value = tokens[at++] === "*" ? value * factor() : value / factor();
    }
    return value;
  };
  const sum = () => {
    let value = term();
    while (tokens[at] === "+" || tokens[at] === "-") {
      value = tokens[at++] === "+" ? value + term() : value - term();
    }
    return value;
  };
  let value = sum();
  if (tokens[at] === ">") { at++; value = Number(value > sum()); }
  if (tokens[at] === "!=") { at++; value = Number(value !== sum()); }
  if (!Number.isSafeInteger(value)) {
    throw new ConfigError(`config.json: ${expression} must be a whole number, got ${value}`);
  }
  return value;
}

/** The first alternative of a symbol's rule that the configuration answers. */
function resolve(rule, symbols, config, family) {
  const alternatives = rule.split("|").map((alternative) => alternative.trim());
  for (const alternative of alternatives) {
    const [key, start] = alternative.split("~");
    const value = Object.hasOwn(config, key) ? config[key] : null;
    if (value !== null) {
      if (start !== undefined) return Number(String(value).startsWith(start));
      if (["0", "1"].includes(alternatives[alternatives.length - 1])) { // a flag: its default says so
        if (![true, false, 0, 1].includes(value)) {
          throw new ConfigError(`config.json: ${key} must be true or false, got `
            + JSON.stringify(value).slice(0, 60));
        }
        return Number(value);
      }
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new ConfigError(`config.json: ${key} must be a positive integer, got `
          + JSON.stringify(value).slice(0, 60));
      }
      return value;
    }
    const names = alternative.match(/[A-Za-z_]\w*/g) ?? [];
    if (start === undefined && names.every((name) => symbols.has(name))) {
      return evaluate(alternative, symbols);
    }
  }
  throw new ConfigError(`config.json: a ${family} model needs ${alternatives.join(" or ")}, `
    + "and it is missing");
}

/** The rows of a family's table with sizes filled in; each stands for `count` modules. */
function expand(table, symbols) {
  const rows = [];
  for (const line of table.split("\n").map((text) => text.trim()).filter(Boolean)) {
    const [path, kind, ...rest] = line.split(/\s+/);
    const isSize = (word) => !word.includes(":") && word !== "bias";
    const sizes = rest.filter(isSize).map((word) => evaluate(word, symbols));
    const options = new Map(rest.filter((word) => !isSize(word)).map((word) => word.split(":")));
    const flag = (name) => options.has(name)
      && evaluate(options.get(name) ?? "1", symbols) !== 0;
    if (options.has("if") && !flag("if")) continue;
    const count = [...path.matchAll(/{(\w+)}/g)]
      .reduce((product, [, name]) => product * symbols.get(name), 1);
    const size = sizes.reduce((product, n) => product * n, 1);
    const linear = kind === "linear" || kind === "conv1d";
    rows.push({
      path, leaf: path.split(".").pop(), kind, linear, count, size, out: sizes[sizes.length - 1],
      unit: linear ? sizes[0] + sizes[1] : 0,
      own: (flag("tied") ? 0 : size) + (flag("bias") ? sizes[sizes.length - 1] : 0),
    });
  }
  return rows;
}

/** What `explorer.memory_record` finds for a model, for a configuration pasted into the page. */
function readConfig(config, families, [block, secondBlock]) {
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new ConfigError("A config.json is an object in braces: { … }");
  }
  const family = Object.hasOwn(config, "model_type") ? config.model_type : null;
  if (typeof family !== "string" || !Object.hasOwn(families, family)) {
    const known = Object.keys(families).join(", ");
    const nested = Object.hasOwn(config, "text_config")
      ? " This one nests a language model: paste the content of its text_config." : "";
    throw new ConfigError((family === null ? "config.json: model_type is missing."
      : `config.json: model_type ${JSON.stringify(family).slice(0, 60)} is not a family that is `
        + "known here.") + ` Known are ${known}.${nested}`);
  }
  const table = families[family];
  const symbols = new Map([["labels", 2]]);
  for (const line of table.symbols.trim().split("\n")) {
    const [name, rule] = line.split(/=(.*)/s);
    symbols.set(name.trim(), resolve(rule, symbols, config, family));
  }
  for (const name of ["layers", "d", "ff", "heads", "vocab"]) {
    if (symbols.get(name) < 1) throw new ConfigError(`config.json: ${name} must be positive`);
  }
  const rows = expand(`${table.modules}\n${Object.values(table.heads)[0]}`, symbols);
  const total = rows.reduce((sum, { own, count }) => sum + own * count, 0);

  const linear = rows.filter((row) => row.linear);
  const head = linear.filter(({ out }) => out === symbols.get("vocab")).pop();
  const units = {};
  for (const { leaf, unit, count } of linear) units[leaf] = (units[leaf] ?? 0) + unit * count;

  const packed = rows.filter((row) => row.kind === "linear" && row !== head);
  const over = (amount) => packed.reduce((sum, row) => sum + amount(row) * row.count, 0);
  const blocks = ({ size }) => Math.ceil(size / block);
  const quantised = over(({ size }) => size);
  const rest = 2 * (total - quantised);
  const codes = over(({ size }) => Math.ceil(size / 2));
  const frozen = {
    float32: [4 * total],
    bfloat16: [2 * total],
    int8: [quantised, 4 * over(({ out }) => out), rest],
    nf4: [codes, 4 * over(blocks), rest],
    "nf4+dq": [codes,
      over(blocks) + 4 * over((row) => Math.ceil(blocks(row) / secondBlock)), rest],
  };
  const everything = Object.keys(units).filter((leaf) => leaf !== head?.leaf);
  if (!Number.isSafeInteger(64 * total) || Object.values(units).some((n) => n > 1e12)) {
    throw new ConfigError("config.json: these sizes make a model too large to count exactly");
  }
  return { total, units, frozen, head: head?.leaf ?? null, targets: table.lora ?? everything };
}

/** Read pasted text; whatever is wrong with it comes back as a ConfigError in plain words. */
function readPasted(text, families, nf4) {
  if (text.length > LONGEST_CONFIG) {
    throw new ConfigError(`That is ${formatCount(text.length)} characters; a config.json has at `
      + `most ${formatCount(LONGEST_CONFIG)}.`);
  }
  let config;
  try {
    config = JSON.parse(text);
  } catch {
    throw new ConfigError("That is not JSON. Paste the whole file, from { to }.");
  }
  const record = readConfig(config, families, nf4);
  const given = typeof config._name_or_path === "string" ? config._name_or_path.slice(0, 60) : "";
  return { ...record, name: `Pasted: ${given || config.model_type}` };
}

/** Bytes of every item, for full fine-tuning and for LoRA. */
function memoryBill(record, { rank, targets, base, convention, optimizer }, states) {
  const trained = targets.reduce((sum, leaf) => sum + record.units[leaf] * rank, 0);
  const side = (key, params, frozen, perParameter) => ({
    key, params,
    items: [["frozen weights", frozen],
      ...perParameter.map(([label, bytes]) => [label, params * bytes])],
  });
  const sides = [
    side("full", record.total, 0, states[convention][optimizer]),
    side("lora", trained, record.frozen[base].reduce((sum, bytes) => sum + bytes, 0),
      states.fp32[optimizer]),
  ];
  for (const one of sides) one.bytes = one.items.reduce((sum, [, bytes]) => sum + bytes, 0);
  return sides;
}

const gigabytes = (bytes) => `${bytes < 1e7 ? threeDigits.format(bytes / 1e9)
  : (bytes / 1e9).toFixed(2)}\u00a0GB`;

function memoryBars(labels, colors) {
  const gpu = h("span", { class: "pw-gpu" }, h("span", {}));
  const rows = Object.fromEntries(Object.entries(labels).map(([key, label]) => {
    const bar = h("span", { class: "pw-stack" });
    const value = h("span", { class: "pw-bar-value" });
    return [key, {
      bar, value, row: h("div", { class: "pw-bar-row" },
        h("span", { class: "pw-bar-label" }, label),
        h("span", { class: "pw-bar-track" }, bar, value)),
    }];
  }));
  const node = h("div", { class: "pw-chart pw-memory", role: "img" },
    h("div", { class: "pw-plot" }, h("div", { class: "pw-axis" }, gpu),
      Object.values(rows).map(({ row }) => row)));
  node.show = (sides, memory) => {
    // The picture reaches as far as the GPU and LoRA need; a longer bar is cut off with an arrow.
    const end = Math.max(1.25 * memory, ...sides.slice(1).map(({ bytes }) => 1.1 * bytes));
    for (const { key, items, bytes } of sides) {
      const { bar, value } = rows[key];
      const shown = Math.min(1, bytes / end);
      bar.style.width = `${100 * shown}%`;
      bar.classList.toggle("pw-cut", bytes > end);
      let start = 0;
      bar.replaceChildren(...items.flatMap(([label, size]) => {
        const seen = Math.min(size, shown * end - start);
        start += size;
        if (seen <= 0) return [];
        const part = colour(h("span", {}), colors[label]);
        part.style.width = `${(100 * seen) / (end * shown)}%`;
        return [part];
      }));
      value.style.transform = `translate(${100 * shown}%, -50%)`;
      setText(value, bytes > end ? `\u2192 ${formatBytes(bytes)}` : formatBytes(bytes));
    }
    gpu.style.left = `${(100 * memory) / end}%`;
    setText(gpu.firstChild, formatBytes(memory));
    node.setAttribute("aria-label", `Stacked bars of memory against ${formatBytes(memory)}: `
      + sides.map(({ key, bytes }) => `${labels[key]} ${formatBytes(bytes)}`).join(", ")
      + ". The table below has every part.");
  };
  return node;
}

function render({ model, el }) {
  const prefix = uniquePrefix();
  const get = (name) => model.get(name);
  const records = new Map(Object.entries(get("_records")));
  const colors = get("_colors");
  const states = get("_states");
  const labels = { full: "Full fine-tuning", lora: "LoRA" };
  const record = () => records.get(get("model")) ?? records.values().next().value;
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  /** Keep the chosen target modules where the model has them, else take PEFT's default. */
  const pick = (name) => {
    const { units, targets } = records.get(name);
    const kept = get("targets").filter((leaf) => Object.hasOwn(units, leaf));
    change({ model: name, targets: kept.length ? kept : targets });
  };

  const which = dropDown({
    id: `${prefix}-model`, name: "model", label: "Model", onPick: pick,
    options: [...records].map(([name, { total }]) => [name, `${name}: ${formatShort(total)}`]),
  });
  const listOf = (name, label, options) => dropDown({
    id: `${prefix}-${name}`, name, label, options,
    onPick: (value) => change({ [name]: name === "gpu" ? Number(value) : value }),
  });
  const base = listOf("base", "Frozen weights, LoRA", get("_bases"));
  const convention = listOf("convention", "Kept as, full fine-tuning", get("_conventions"));
  const optimizer = listOf("optimizer", "Optimizer", get("_optimizers"));
  const gpu = listOf("gpu", "GPU", get("_gpus"));
  const rank = colour(slider({
    id: `${prefix}-rank`, name: "rank", label: "LoRA rank", values: get("_ranks"),
    say: (value) => `rank ${value}`, onMove: (value) => change({ rank: value }),
  }), get("_lora_color"));

  const boxes = h("div", { class: "pw-boxes" });
  const allLinear = h("button", {
    type: "button", class: "pw-button pw-slim", onClick: () => {
      const { units, head } = record();
      change({ targets: Object.keys(units).filter((leaf) => leaf !== head) });
    },
  }, "all-linear");
  const usual = h("button", {
    type: "button", class: "pw-button pw-slim",
    onClick: () => change({ targets: record().targets }),
  }, "default");
  const targets = h("fieldset", { class: "pw-targets" },
    h("legend", {}, "Target modules"), boxes, h("div", { class: "pw-row" }, allLinear, usual));
  let drawn = null;
  const showTargets = ({ units }) => {
    if (drawn !== units) { // another model: other modules
      drawn = units;
      boxes.replaceChildren(...Object.keys(units).map((leaf, index) => {
        const id = `${prefix}-target-${index}`;
        const box = h("input", {
          type: "checkbox", id, value: leaf, "data-name": "target",
          onChange: () => change({
            targets: Object.keys(units).filter((name) =>
              (name === leaf ? box.checked : get("targets").includes(name))),
          }),
        });
        return h("span", { class: "pw-box" }, box, h("label", { for: id }, leaf));
      }));
    }
    for (const box of boxes.querySelectorAll("input")) {
      box.checked = get("targets").includes(box.value);
    }
  };

  const area = h("textarea", {
    id: `${prefix}-config`, rows: 6, spellcheck: "false", autocomplete: "off",
    "aria-describedby": `${prefix}-answer`,
  });
  const answer = h("p", { id: `${prefix}-answer`, class: "pw-answer", role: "status" });
  const use = h("button", {
    type: "button", class: "pw-button", onClick: () => {
      try {
        const { name, ...pasted } = readPasted(area.value, get("_families"), get("_nf4"));
        let option = [...which.select.options].find(({ value }) => value === name);
        if (!option) which.select.append(option = h("option", { value: name }));
        setText(option, `${name}: ${formatShort(pasted.total)}`);  // a second one of its name is another
        records.set(name, pasted);
        drawn = null;
        pick(name);
        redraw();
        area.removeAttribute("aria-invalid");
        setText(answer, `Read: ${formatCount(pasted.total)} parameters.`);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        area.setAttribute("aria-invalid", "true");
        setText(answer, error.message);
      }
    },
  }, "Use this model");
  const paste = h("details", { class: "pw-details" },
    h("summary", {}, "Use your own model"),
    h("label", { for: `${prefix}-config` }, "Paste its config.json"), area,
    h("div", { class: "pw-row" }, use), answer);

  const headline = h("p", { class: "pw-headline", "aria-hidden": "true" });
  const figure = h("b", {});
  const sentence = h("span", {});
  headline.append(figure, sentence);
  colour(headline, get("_lora_color"));
  const spoken = announcer();
  const bars = memoryBars(labels, colors);
  const caption = h("caption", {});
  const body = h("tbody", {});
  const table = h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" }, caption,
    h("thead", {}, h("tr", {}, ["Where memory goes", labels.full, labels.lora]
      .map((text) => h("th", { scope: "col" }, text)))), body));
  const detail = h("p", { class: "pw-note" });

  const draw = () => {
    const now = record();
    const chosen = get("targets").filter((leaf) => Object.hasOwn(now.units, leaf));
    const settings = Object.fromEntries(["rank", "base", "convention", "optimizer"]
      .map((name) => [name, get(name)]));
    const sides = memoryBill(now, { ...settings, targets: chosen }, states);
    const [full, lora] = sides;
    const memory = get("gpu") * 1e9;

    which.show(records.has(get("model")) ? get("model") : records.keys().next().value);
    base.show(get("base"));
    convention.show(get("convention"));
    optimizer.show(get("optimizer"));
    gpu.show(String(get("gpu")));
    rank.show(get("rank"), `${formatCount(lora.params)} parameters`);
    showTargets(now);

    const all = now.total + lora.params;
    const percent = `${((100 * lora.params) / all).toFixed(4)}\u00a0%`;
    const fits = (side) => (side.bytes <= memory ? "fits" : "does not fit");
    setText(figure, chosen.length ? `${formatCount(lora.params)} of ${formatCount(all)}` : "none");
    const rest = chosen.length
      ? `parameters are trained by LoRA: ${percent}. Before activations, LoRA needs `
        + `${formatBytes(lora.bytes)} and ${fits(lora)} into ${formatBytes(memory)}; full `
        + `fine-tuning needs ${formatBytes(full.bytes)} and ${fits(full)}.`
      : "Choose at least one target module: LoRA has nothing to train.";
    setText(sentence, rest);
    bars.show(sides, memory);
    setText(caption, `${which.select.selectedOptions[0]?.textContent ?? ""} parameters; GB = 10⁹ bytes`);
    const names = [...new Set(sides.flatMap(({ items }) => items.map(([label]) => label)))];
    const row = (label, cells, swatch) => h("tr", { "data-item": label },
      h("th", { scope: "row" }, swatch, label[0].toUpperCase() + label.slice(1)),
      cells.map((bytes, index) => h("td", { "data-side": sides[index].key, "data-bytes": bytes },
        bytes ? gigabytes(bytes) : "\u2013")));
    body.replaceChildren(
      ...names.map((label) => row(label,
        sides.map(({ items }) => items.find(([name]) => name === label)?.[1] ?? 0),
        colour(h("span", { class: "pw-swatch" }), colors[label]))),
      row("total", sides.map(({ bytes }) => bytes)));
    body.dataset.trainable = lora.params;
    body.dataset.total = now.total;
    const parts = get("_frozen_labels")[get("base")];
    setText(detail, `${parts.map((label, index) =>
      `${label}: ${gigabytes(now.frozen[get("base")][index])}`).join("; ")}. ${get("_note")}`);
    return `${figure.textContent} ${rest}`;
  };

  const root = widgetRoot("Memory explorer",
    h("div", { class: "pw-controls" },
      h("div", { class: "pw-group" }, which, rank, targets),
      h("div", { class: "pw-group" }, base, convention, optimizer, gpu)),
    paste, headline, spoken, bars, table, detail);
  draw();
  const redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["model", "targets", "rank", "base", "convention", "optimizer", "gpu"]
    .map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(root);
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
