// The memory explorer: where the memory goes when a real model is fine-tuned.
//
// For the listed models Python counted everything that is multiplied here (accounting.py). Only a
// configuration that a reader pastes is counted in the page, by reading the table of families that
// accounting.py itself reads; a test compares the two on every listed model. Pasted text is data:
// it is parsed as JSON, its numbers are checked, and it enters the page as text only. Notebooks are
// stored with sorted keys, so what has an order (models, modules) comes as a list of pairs.

const LONGEST_CONFIG = 100_000;

class ConfigError extends Error {}

/** The value of an expression of the table: + - * / // ( ) > != over numbers and symbols. */
function evaluate(expression, symbols) {
  const tokens = expression.match(/\d+|[A-Za-z_]\w*|!=|\/\/|[-+*/()>]/g);
  let at = 0;
  const factor = () => {
    const token = tokens[at++];
    if (token === "(") {
      const value = comparison();
      at++;
      return value;
    }
    return /^\d/.test(token) ? Number(token) : symbols.get(token);
  };
  const term = () => {
    let value = factor();
    while (["*", "/", "//"].includes(tokens[at])) {
      const sign = tokens[at++];
      value = sign === "*" ? value * factor() : value / factor();
      if (sign === "//") value = Math.floor(value);
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
  const comparison = () => {
    const value = sum();
    if (tokens[at] === ">") { at++; return Number(value > sum()); }
    if (tokens[at] === "!=") { at++; return Number(value !== sum()); }
    return value;
  };
  const value = comparison();
  if (!Number.isSafeInteger(value)) {
    throw new ConfigError(`config.json: ${expression} must be a whole number, got ${value}`);
  }
  return value;
}

const shown = (value) => JSON.stringify(value).slice(0, 60);

/** The first alternative of a symbol's rule that the configuration answers, or a default. */
function resolve(rule, symbols, config, table, family, assumed) {
  const optional = rule.includes("?"); // 0 and null mean that there is none
  const alternatives = rule.replaceAll("?", "").split("|").map((alternative) => alternative.trim());
  const given = alternatives.some((each) => Object.hasOwn(config, each.split("~")[0]));
  for (const alternative of alternatives) {
    const [key, start] = alternative.split("~");
    if (start === undefined && symbols.has(key)) return symbols.get(key);
    const value = Object.hasOwn(config, key) ? config[key] : null;
    if (value !== null) {
      if (start !== undefined) return Number(String(value).startsWith(start));
      if (["0", "1"].includes(alternatives[alternatives.length - 1])) { // a flag: its default says so
        if (![true, false, 0, 1].includes(value)) {
          throw new ConfigError(`config.json: ${key} must be true or false, got ${shown(value)}`);
        }
        return Number(value);
      }
      if (!Number.isSafeInteger(value) || value < 1 - optional) {
        throw new ConfigError(`config.json: ${key} must be a positive integer, got `
          + shown(value));
      }
      return value;
    }
    if (!given && Object.hasOwn(table.defaults, key)) {
      assumed.set(key, table.defaults[key]);
      return table.defaults[key];
    }
    const names = alternative.match(/[A-Za-z_]\w*/g) ?? [];
    if (start === undefined && names.every((name) => symbols.has(name))) {
      return evaluate(alternative, symbols);
    }
  }
  if (optional) return 0;
  throw new ConfigError(`config.json: a ${family} model needs ${alternatives.join(" or ")}, `
    + "and it is missing");
}

/** What kind each layer is of, by a list in the file or by the interval that stands for one. */
function listed(rule, layers, config, family) {
  const has = (key) => Object.hasOwn(config, key) && config[key] !== null;
  let kinds = has(rule.key) ? config[rule.key] : null;
  if (kinds === null && rule.every) {
    const [name, usual, most, some] = rule.every;
    const interval = Object.hasOwn(config, name) ? config[name] : usual;
    if (!Number.isSafeInteger(interval) || interval < 1) {
      throw new ConfigError(`config.json: ${name} must be a positive integer, got `
        + shown(interval));
    }
    kinds = Array.from({ length: layers }, (_, i) => ((i + 1) % interval ? most : some));
  }
  if (!Array.isArray(kinds) || kinds.length !== layers
    || !kinds.every((kind) => rule.kinds.includes(kind))) {
    throw new ConfigError(`config.json: ${rule.key} of a ${family} model must be a list of `
      + `${layers} (num_hidden_layers), each ${rule.kinds.join(" or ")}, got ${shown(kinds)}`);
  }
  return kinds;
}

/** How many numbers `{stop}`, `{start:stop}` or `{list=kind}` in a path stands for. */
function spanOf(span, symbols, lists) {
  if (span.includes("=")) {
    const [name, kind] = span.split("=");
    return lists[name].filter((each) => each === kind).length;
  }
  const [stop, start] = span.split(":").reverse().map((part) => evaluate(part, symbols));
  if (start > stop || (start !== undefined && stop > symbols.get("layers"))) {
    throw new ConfigError(`config.json: ${span} are layers ${start} to ${stop}, and the model has `
      + `${symbols.get("layers")}; correct the file`);
  }
  return stop - (start ?? 0);
}

/** The rows of a family's table with sizes filled in; each stands for `count` modules. */
function expand(table, symbols, lists) {
  const rows = [];
  for (const line of table.split("\n").map((text) => text.trim()).filter(Boolean)) {
    const [path, kind, ...rest] = line.split(/\s+/);
    const isSize = (word) => !word.includes(":") && word !== "bias";
    const sizes = rest.filter(isSize).map((word) => evaluate(word, symbols));
    const options = new Map(rest.filter((word) => !isSize(word)).map((word) => word.split(":")));
    const flag = (name) => options.has(name)
      && evaluate(options.get(name) ?? "1", symbols) !== 0;
    if (options.has("if") && !flag("if")) continue;
    const count = [...path.matchAll(/{([^}]*)}/g)]
      .reduce((product, [, span]) => product * spanOf(span, symbols, lists), 1);
    if (count === 0) continue;
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

/** The table of a configuration's family, if it covers all that the file describes, and the file
 * with the keys of its parts as `part.key`. */
function tableOf(config, families, rules) {
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new ConfigError("A config.json is an object in braces: { … }");
  }
  const has = (key) => Object.hasOwn(config, key);
  if (has("_class_name") && has("_diffusers_version")) {
    throw new ConfigError("This file is diffusers'; only models of transformers are counted.");
  }
  if (has("peft_type")) {
    throw new ConfigError("This is the adapter_config.json of an adapter: paste the config.json of "
      + `its base model, ${shown(config.base_model_name_or_path ?? null)}.`);
  }
  const family = has("model_type") ? config.model_type : null;
  const inside = typeof family === "string" && Object.hasOwn(families, family)
    ? families[family].parts ?? [] : [];
  const parts = rules.towers.filter((key) => has(key) && config[key] !== null
    && !inside.includes(key) && ["object", "string"].includes(typeof config[key]));
  if (parts.length) {
    const alone = has("text_config") && Object.hasOwn(families, config.text_config?.model_type);
    throw new ConfigError(`config.json: model_type ${shown(family)} consists of several parts `
      + `(${parts.join(", ")}), and only single language models are counted: PEFT also adapts `
      + `modules of the same names in the other parts.${alone
        ? " To count its language model without them, paste the content of text_config." : ""}`);
  }
  if (typeof family !== "string" || !Object.hasOwn(families, family)) {
    throw new ConfigError((family === null ? "config.json: model_type is missing."
      : `config.json: model_type ${shown(family)} is not a family that is known here.`)
      + ` Known are ${Object.keys(families).sort().join(", ")}.`);
  }
  const table = families[family];
  for (const part of inside) {
    const found = (has(part) ? config[part] : null) || {};
    if (typeof found !== "object" || Array.isArray(found)) {
      throw new ConfigError(`config.json: ${part} must be an object, got ${shown(found)}`);
    }
    if (part === "text_config" && !Object.keys(found).length) {
      throw new ConfigError(`config.json: a ${family} model needs text_config, and it is missing`);
    }
    config = { ...config, ...Object.fromEntries(Object.entries(found)
      .map(([key, value]) => [`${part}.${key}`, value])) };
  }
  const own = config.auto_map ?? {};
  const foreign = (typeof own === "object" ? Object.values(own) : [own]).map(String)
    .filter((entry) => !(table.own_code ?? []).includes(entry.split("--").pop()));
  if (foreign.length) {
    throw new ConfigError("config.json: auto_map names code of its own "
      + `(${foreign.join(", ").slice(0, 160)}); what that builds is not known here. If it is `
      + `transformers' ${family} after all, remove auto_map.`);
  }
  for (const [key, counted] of Object.entries(table.only ?? {})) {
    const same = (value) => JSON.stringify(value) === JSON.stringify(config[key]);
    if (Object.hasOwn(config, key) && config[key] !== null && !counted.some(same)) {
      throw new ConfigError(`config.json: ${key} is ${shown(config[key])}; only `
        + `${counted.map(shown).join(" or ")} is counted for ${family}`);
    }
  }
  return [family, table, config];
}

/** The task of the first class that the file names, or the family's usual one. */
function taskOf(config, family, table) {
  const classes = config.architectures ?? [];
  if (!Array.isArray(classes) || classes.some((name) => typeof name !== "string")) {
    throw new ConfigError("config.json: architectures must be a list of names, got "
      + shown(classes));
  }
  if (!classes.length) return table.head;
  if (!Object.hasOwn(table.classes, classes[0])) {
    throw new ConfigError(`config.json: ${classes[0].slice(0, 60)} (architectures) is not a class `
      + `of ${family} that is known here; known are `
      + `${Object.keys(table.classes).sort().join(", ")}.`);
  }
  return table.classes[classes[0]];
}

/** Outputs of a classification head. */
function labelsOf(config) {
  const names = config.id2label ?? {};
  if (typeof names !== "object" || Array.isArray(names)) {
    throw new ConfigError(`config.json: id2label must be an object, got ${shown(names)}`);
  }
  const labels = config.num_labels || Object.keys(names).length || 2;
  if (!Number.isSafeInteger(labels) || labels < 1) {
    throw new ConfigError(`num_labels must be a positive integer, got ${shown(labels)}`);
  }
  return labels;
}

/** What `explorer.memory_record` finds for a model, for a configuration pasted into the page. */
function readConfig(given, families, rules) {
  const [block, secondBlock] = rules.nf4;
  const [family, table, config] = tableOf(given, families, rules);
  const task = taskOf(config, family, table);
  const symbols = new Map([["labels", labelsOf(config)]]);
  const assumed = new Map();
  for (const line of table.symbols.trim().split("\n")) {
    const [name, rule] = line.split(/=(.*)/s);
    symbols.set(name.trim(), resolve(rule, symbols, config, table, family, assumed));
  }
  for (const name of ["layers", "d", "ff", "heads", "vocab"]) {
    if (symbols.get(name) < 1) throw new ConfigError(`config.json: ${name} must be positive`);
  }
  const onTop = (table.heads[task] ?? "").split("\n").map((line) => line.trim())
    .filter((line) => !line.startsWith("root "));
  for (const line of onTop.filter((each) => /^\w+ = /.test(each))) {
    symbols.set(line.split(" = ")[0], Number(line.split(" = ")[1]));
  }
  const head = onTop.filter((line) => !line.includes(" = ")).join("\n");
  const lists = Object.fromEntries(Object.entries(table.lists ?? {}).map(([name, rule]) =>
    [name, listed(rule, symbols.get("layers"), config, family)]));
  const rows = expand(`${table.modules}\n${head}`, symbols, lists);
  const total = rows.reduce((sum, { own, count }) => sum + own * count, 0);

  const linear = rows.filter((row) => row.linear);
  const top = rules.vocabulary.includes(task)
    ? linear.filter(({ out }) => out === symbols.get("vocab")).pop() : undefined;
  const whole = rules.saved[task] ?? []; // what PEFT trains as a copy, besides LoRA
  const inside = ({ path }, names) => path.split(".").some((part) => names.includes(part));
  const copied = ({ path }) => path.split(".") // PEFT asks for no dot: a pre_classifier, too
    .some((part) => whole.some((name) => part.endsWith(name)));
  const saved = rows.filter(copied)
    .reduce((sum, { own, count }) => sum + own * count, 0);
  const each = new Map();
  const other = rows.filter(({ kind, leaf }) => kind === "stack" && leaf === "weight")
    .map(({ path }) => path.split(".").at(-2)); // convolutions are not counted
  const fused = [...table.fused ?? [], ...other];
  const counted = (row) => !inside(row, whole) && !fused.includes(row.leaf);
  for (const { leaf, unit, count } of linear.filter(counted)) {
    each.set(leaf, (each.get(leaf) ?? 0) + unit * count);
  }
  const units = [...each];

  const heads = Object.values(rules.saved).flat();
  const packed = linear.filter((row) => row !== top && !heads.includes(row.path.split(".")[0])
    && !(table.not_quantized ?? []).some((name) => `.${row.path}`.endsWith(`.${name}`)));
  const over = (amount) => packed.reduce((sum, row) => sum + amount(row) * row.count, 0);
  const blocks = ({ size }) => Math.ceil(size / block);
  const quantized = over(({ size }) => size);
  const rest = 4 * (total - quantized);
  const codes = over(({ size }) => Math.ceil(size / 2));
  const frozen = {
    float32: [4 * total],
    bfloat16: [2 * total],
    int8: [quantized, 4 * over(({ out }) => out), rest],
    nf4: [codes, 4 * over(blocks), rest],
    "nf4+dq": [codes,
      over(blocks) + 4 * over((row) => Math.ceil(blocks(row) / secondBlock)), rest],
  };
  const everything = units.map(([leaf]) => leaf).filter((leaf) => leaf !== top?.leaf);
  if (!Number.isSafeInteger(64 * total) || units.some(([, n]) => n > 1e12)) {
    throw new ConfigError("config.json: these sizes make a model too large to count exactly");
  }
  const notes = [
    table.note ?? "",
    assumed.size ? rules.notes.assumed.replace("{family}", family)
      .replace("{taken}", [...assumed].map((pair) => pair.join(" = ")).join(", ")) : "",
    config.quantization_config ? rules.notes.quantization_config : "",
    config.auto_map ? rules.notes.auto_map : "",
  ].filter(Boolean);
  return {
    total, saved, units, frozen, notes, head: top?.leaf ?? null,
    targets: table.lora ?? everything,
  };
}

/** JSON as people have it: a comma before a closing brace, or as Python prints a configuration. */
function parseConfig(text) {
  const python = { True: "true", False: "false", None: "null" };
  const json = text.replace(/^\ufeff/, "").trim().replace(/^[A-Za-z]\w*Config\s*(?={)/, "")
    .replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|,(?=\s*[}\]])|\b[A-Za-z]+\b/g, (token) => {
      if (token[0] === "'") {
        const inner = token.slice(1, -1).replaceAll("\\'", "'");
        return `"${inner.replace(/(?<!\\)"/g, '\\"')}"`;
      }
      return token === "," ? "" : python[token] ?? token;
    });
  try {
    return JSON.parse(json);
  } catch (error) {
    if (/^https?:\/\/\S+$/.test(text.trim())) {
      throw new ConfigError("That is an address. Open it, and paste the content of the file.");
    }
    const count = (brace) => text.split(brace).length - 1;
    throw new ConfigError(`That is not JSON: ${error.message.slice(0, 120)}.${
      text.trim().startsWith("{") && count("{") > count("}")
        ? " It ends before its last closing brace, so a part is missing." : ""}`);
  }
}

/** Read pasted text; whatever is wrong with it comes back as a ConfigError in plain words. */
function readPasted(text, families, rules) {
  if (text.length > LONGEST_CONFIG) {
    throw new ConfigError(`That is ${formatCount(text.length)} characters; a config.json has at `
      + `most ${formatCount(LONGEST_CONFIG)}.`);
  }
  const config = parseConfig(text);
  const record = readConfig(config, families, rules);
  const given = typeof config._name_or_path === "string" ? config._name_or_path.slice(0, 60) : "";
  return { ...record, name: `Pasted: ${given || config.model_type}` };
}

/** Bytes of every item, for full fine-tuning and for LoRA. */
function memoryBill(record, { rank, targets, base, convention, optimizer }, states) {
  const units = new Map(record.units);
  const trained = targets.reduce((sum, leaf) => sum + units.get(leaf) * rank, 0);
  // A head that PEFT copies from a base in 16 bits stays in 16 bits.
  const copies = states[base === "bfloat16" ? "bf16" : "fp32"][optimizer];
  const saved = targets.length ? record.saved : 0;
  const sides = [{
    key: "full", params: record.total,
    items: [["frozen weights", 0],
      ...states[convention][optimizer].map(([label, bytes]) => [label, record.total * bytes])],
  }, {
    key: "lora", params: trained + saved,
    items: [["frozen weights", record.frozen[base].reduce((sum, bytes) => sum + bytes, 0)],
      ...states.fp32[optimizer].map(([label, bytes], index) =>
        [label, trained * bytes + saved * copies[index][1]])],
  }];
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
  const records = new Map(get("_records"));
  const colors = get("_colors");
  const states = get("_states");
  const labels = { full: "Full fine-tuning", lora: "LoRA" };
  let refused = false; // the last text that was pasted: then no model is shown
  let redraw = () => {};
  const record = () => records.get(get("model")) ?? records.values().next().value;
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  /** Keep the chosen target modules where the model has them, else take PEFT's default. */
  const pick = (name) => {
    const { units, targets } = records.get(name);
    const kept = get("targets").filter((leaf) => new Map(units).has(leaf));
    refused = false;
    change({ model: name, targets: kept.length ? kept : targets });
    redraw(); // the model may be the one before
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
      change({ targets: units.map(([leaf]) => leaf).filter((leaf) => leaf !== head) });
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
      boxes.replaceChildren(...units.map(([leaf], index) => {
        const id = `${prefix}-target-${index}`;
        const box = h("input", {
          type: "checkbox", id, value: leaf, "data-name": "target",
          onChange: () => change({
            targets: units.map(([name]) => name).filter((name) =>
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
        const { name, ...pasted } = readPasted(area.value, get("_families"), get("_rules"));
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
        refused = true;
        redraw();
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

  /** After a refusal: no figure of another model may stand there as if it were this one's. */
  const clear = () => {
    which.select.selectedIndex = -1;
    setText(figure, "Nothing is counted");
    setText(sentence, "because the pasted configuration was refused; choose a model, or correct it.");
    bars.hidden = true;
    rank.show(get("rank"), "");
    setText(caption, "");
    body.replaceChildren();
    delete body.dataset.trainable;
    delete body.dataset.total;
    setText(detail, "");
    return `${figure.textContent} ${sentence.textContent}`;
  };

  const draw = () => {
    if (refused) return clear();
    const now = record();
    const chosen = get("targets").filter((leaf) => new Map(now.units).has(leaf));
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
    bars.hidden = false;
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
      `${label}: ${gigabytes(now.frozen[get("base")][index])}`).join("; ")}. `
      + [...now.notes, get("_note")].join(" "));
    return `${figure.textContent} ${rest}`;
  };

  const root = widgetRoot("Memory explorer",
    h("div", { class: "pw-controls" },
      h("div", { class: "pw-group" }, which, rank, targets),
      h("div", { class: "pw-group" }, base, convention, optimizer, gpu)),
    paste, headline, spoken, bars, table, detail);
  draw();
  redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["model", "targets", "rank", "base", "convention", "optimizer", "gpu"]
    .map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(root);
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
