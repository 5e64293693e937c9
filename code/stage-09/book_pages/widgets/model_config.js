// Reads the config.json that a reader pastes into the memory explorer (memory.js).
//
// The listed models Python counted. This counts a pasted one by the table of families that
// accounting.py itself reads; a test compares the two on every listed model and every family.
// Pasted text is data: it is parsed as JSON, its numbers are checked, and it enters the page as text
// only. Notebooks are stored with sorted keys, so what has an order comes as a list of pairs.

const LONGEST_CONFIG = 100_000;
const LARGEST_SIZE = 100_000_000; // of one dimension, and
const MOST_MODULES = 100_000; // layers among them; both as in accounting.py

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

/** Whether the value of a key is what stands behind `~` in a rule. */
function isSo(key, value, test) {
  if (test === ">") {
    if (typeof value !== "number") {
      throw new ConfigError(`config.json: ${key} must be a number, got ${shown(value)}`);
    }
    return Number(value > 0);
  }
  // String() fails on an object of JSON whose toString is no function
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return Number(test[0] === "*" ? text.includes(test.slice(1)) : text.startsWith(test));
}

/** The first alternative of a symbol's rule that the configuration answers, or a default. */
function resolve(rule, symbols, config, table, family, assumed) {
  const optional = rule.includes("?"); // 0 and null mean that there is none, and so may -1
  const alternatives = rule.replaceAll(/\?(-1)?/g, "").split("|").map((each) => each.trim());
  const given = alternatives.some((each) => Object.hasOwn(config, each.split("~")[0]));
  for (const alternative of alternatives) {
    const [key, start] = alternative.split("~");
    if (start === undefined && symbols.has(key)) return symbols.get(key);
    const value = Object.hasOwn(config, key) ? config[key] : null;
    if (value !== null) {
      if (start !== undefined) return isSo(key, value, start);
      if (value === -1 && rule.includes("?-1")) return 0;
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
      if (value > LARGEST_SIZE) {
        throw new ConfigError(`config.json: ${key} is larger than ${formatCount(LARGEST_SIZE)}, `
          + "which no model is; correct the file");
      }
      return value;
    }
    if (!given && Object.hasOwn(table.defaults, key)) {
      if (start === undefined) assumed.set(key, table.defaults[key]);
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

function checkLayers(layers) {
  if (layers > MOST_MODULES) { // a list of them all would fill the memory
    throw new ConfigError(`config.json: num_hidden_layers is larger than ${
      formatCount(MOST_MODULES)}, which no model has; correct the file`);
  }
}

/** What kind each layer is of, by a list of the numbers of some; without it, by the usual. */
function numbered([key, others, named, usual], layers, config, family) {
  checkLayers(layers);
  const all = Array.from({ length: layers }, (_, i) => i);
  const numbers = (Object.hasOwn(config, key) ? config[key] : null) ?? usual ?? all;
  if (!Array.isArray(numbers) || !numbers.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new ConfigError(`config.json: ${key} of a ${family} model must be a list of the numbers `
      + `of layers, got ${shown(numbers)}`);
  }
  const some = new Set(numbers);
  return all.map((i) => (some.has(i) ? named : others));
}

/** What kind each layer is of, by a list in the file or by the interval that stands for one. */
function listed(rule, layers, config, family) {
  const has = (key) => Object.hasOwn(config, key) && config[key] !== null;
  let kinds = has(rule.key) ? config[rule.key] : null;
  if (rule.numbers && (kinds === null ? !rule.every : rule.numbers[0] === rule.key)) {
    kinds = numbered(rule.numbers, layers, config, family);
  }
  if (kinds === null && rule.every) {
    const [name, usual, most, some] = rule.every;
    const interval = Object.hasOwn(config, name) ? config[name] : usual;
    if (!Number.isSafeInteger(interval) || interval < 1) {
      throw new ConfigError(`config.json: ${name} must be a positive integer, got `
        + shown(interval));
    }
    const [key, usually, count, single] = rule.offset ?? ["", interval - 1];
    const value = (name, other) => (Object.hasOwn(config, name) ? config[name] : other);
    const at = value(key, usually);
    if (!Number.isSafeInteger(at) || at < 0 || at >= interval) {
      throw new ConfigError(`config.json: ${key} must be a whole number below ${name}, which is ${
        interval}, got ${shown(at)}`);
    }
    checkLayers(layers);
    const few = count && value(count, single) === 1;
    kinds = Array.from({ length: layers }, (_, i) => (i % interval === at && !few ? some : most));
  }
  if (Array.isArray(kinds)) {
    kinds = kinds.map((kind) => (Object.hasOwn(rule.old, kind) ? rule.old[kind] : kind));
  }
  if (!Array.isArray(kinds) || kinds.length !== layers
    || !kinds.every((kind) => rule.kinds.includes(kind))) {
    throw new ConfigError(`config.json: ${rule.key} of a ${family} model must be a list of `
      + `${layers} (num_hidden_layers), each ${rule.kinds.join(" or ")}, got ${shown(kinds)}`);
  }
  return rule.last ? [...kinds.slice(0, -1), rule.last] : kinds;
}

/** How many numbers `{stop}`, `{start:stop}`, `{list=kind}` or `{list=kind:stop}` stands for. */
function spanOf(span, symbols, lists) {
  if (span.includes("=")) {
    const [name, kind, stop] = span.split(/[=:]/);
    return lists[name].slice(0, symbols.get(stop)).filter((each) => each === kind).length;
  }
  const [stop, start] = span.split(":").reverse().map((part) => evaluate(part, symbols));
  if ((start ?? 0) > stop || (start !== undefined && stop > symbols.get("layers"))) {
    throw new ConfigError(`config.json: ${span} are layers ${start ?? 0} to ${stop}, and the model has `
      + `${symbols.get("layers")}; correct the file`);
  }
  return stop - (start ?? 0);
}

/** The rows of a family's table with sizes filled in; each stands for `count` modules. */
function expand(table, symbols, lists) {
  const rows = [];
  let modules = 0;
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
    if ((modules += count) > MOST_MODULES) { // what follows makes lists as long
      throw new ConfigError(`config.json: with those called ${path} that makes more than ${
        formatCount(MOST_MODULES)} modules, which no model has; correct the file`);
    }
    const size = sizes.reduce((product, n) => product * n, 1);
    const linear = kind === "linear" || kind === "conv1d";
    rows.push({
      path, leaf: path.split(".").pop(), kind, linear, count, size, sizes,
      out: sizes[sizes.length - 1], biased: flag("bias"), tied: flag("tied"),
      unit: linear ? sizes[0] + sizes[1] : 0,
      own: (flag("tied") ? 0 : size) + (flag("bias") ? sizes[sizes.length - 1] : 0),
    });
  }
  return rows;
}

/** The entries of auto_map that build the model; those that read texts and pictures do not. */
function ownCode(config, rules) {
  const own = config.auto_map || {}, named = (one) => (typeof one === "string" ? one : shown(one));
  if (typeof own !== "object" || Array.isArray(own)) return [named(own)];
  const reads = new RegExp(rules.reads);
  return Object.entries(own).filter(([key]) => !reads.test(key)).map(([, entry]) => named(entry));
}

/** What a file says in ways of its own, as most files say it: see families.py. */
function plain(given, table) {
  const renamed = withOwnNames(given, table.aliases ?? {});
  const config = Object.fromEntries(Object.entries(renamed).map(([key, value]) =>
    [key, value === "auto" && table.auto?.includes(key) ? null : value]));
  if (table.letters) Object.assign(config, spelt(config, table.letters));
  for (const key of table.alike ?? []) {
    const layers = Object.hasOwn(config, "num_hidden_layers") ? config.num_hidden_layers
      : table.defaults.num_hidden_layers;
    const widths = Object.hasOwn(config, key) ? config[key] : null;
    if (!Array.isArray(widths)) continue;
    if (!widths.length || widths.length !== layers || widths.some((each) => each !== widths[0])) {
      throw new ConfigError(`config.json: a list for ${key} is counted only if it says the same of `
        + `each of ${shown(layers)} layers (num_hidden_layers), got ${shown(widths)}`);
    }
    config[key] = widths[0];
  }
  return table.overrides && Object.hasOwn(config, table.overrides.key)
    ? overridden(config, table.overrides) : config;
}

/** The file with the keys' own names. Another name wins, as transformers sets it last. */
function withOwnNames(config, aliases) {
  const renamed = { ...config };
  for (const [alias, value] of Object.entries(config)) {
    if (!Object.hasOwn(aliases, alias)) continue;
    const [key, ...before] = aliases[alias];
    const missing = before.find((name) => !Object.hasOwn(config, name) || config[name] === null);
    if (missing && !(Object.hasOwn(config, key) && config[key] === value)) {
      throw new ConfigError(`config.json: ${alias} is another name of ${key}, and transformers `
        + `reads it only after it has made ${missing} of ${key}; give ${missing} as well, or `
        + `rename ${alias} to ${key}`);
    }
    renamed[key] = value;
  }
  return renamed;
}

/** The layers' kinds by a letter for each, and how many that makes, whatever else the file says. */
function spelt(config, { key, lists, kinds, usual }) {
  const value = (name) => (Object.hasOwn(config, name) ? config[name] : null);
  let named = lists.map(value).find((each) => each !== null) ?? null;
  if (named === null && Object.hasOwn(config, key)) {
    const letters = typeof config[key] === "string" ? [...config[key]] : [""];
    if (!letters.every((letter) => Object.hasOwn(kinds, letter))) {
      throw new ConfigError(`config.json: ${key} must be a text of the letters ${
        Object.keys(kinds).join(" ")}, got ${shown(config[key])}`);
    }
    named = letters.map((letter) => kinds[letter]);
  }
  named ??= usual;
  return { [lists[0]]: named, num_hidden_layers: Array.isArray(named) ? named.length : 0 };
}

/** What a file says of its layers one by one, as the keys that say it of all of one kind. */
function overridden(config, { key, list, kind, keys }) {
  const value = (name) => (Object.hasOwn(config, name) ? config[name] : null);
  const found = value(key), kinds = value(list);
  const entries = typeof found === "object" && found && !Array.isArray(found)
    ? Object.entries(found).map(([at, one]) => [/^\d{1,6}$/.test(at) ? Number(at) : -1, one]) : [];
  const first = entries[0]?.[1] ?? null, text = (one) => JSON.stringify(Object.entries(one).sort());
  const fits = Array.isArray(kinds) && first && entries.every(([, one]) =>
    typeof one === "object" && one && text(one) === text(first))
    && String(entries.map(([at]) => at).sort((a, b) => a - b))
      === String(kinds.flatMap((each, i) => (each === kind ? [i] : [])))
    && Object.keys(first).every((name) =>
      Object.hasOwn(keys, name) && keys[name].slice(1).every(value));
  if (!fits) {
    throw new ConfigError(`config.json: ${key} is counted only if it says the same of each layer `
      + `that is ${kind} in ${list}, and nothing but ${Object.keys(keys).join(", ")}`);
  }
  return { ...config, ...Object.fromEntries(Object.entries(keys).map(([name, [to]]) =>
    [to, Object.hasOwn(first, name) ? first[name] : null])) };
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
  let family = has("model_type") ? config.model_type : null;
  const inside = typeof family === "string" && Object.hasOwn(families, family)
    ? families[family].parts ?? [] : [];
  if (typeof family === "string" && Object.hasOwn(rules.missing, family)) {
    throw new ConfigError(`config.json: model_type ${shown(family)} is not counted: ${
      rules.missing[family]}.`);
  }
  const parts = rules.towers.filter((key) => has(key) && config[key] !== null
    && !inside.includes(key) && !Array.isArray(config[key])
    && ["object", "string"].includes(typeof config[key]));
  if (parts.length) {
    const alone = has("text_config") && Object.hasOwn(families, config.text_config?.model_type);
    throw new ConfigError(`config.json: model_type ${shown(family)} with parts of its own `
      + `(${parts.join(", ")}) is not known here, and PEFT adapts modules of the same names in all `
      + `parts.${alone ? " To count its language model without the others, paste the content of "
        + "text_config." : ""}`);
  }
  const [, what] = rules.other_files.find(([key]) => has(key)) ?? [];
  if (family === null && what) {
    throw new ConfigError(`This is ${what}, and no config.json: model_type is missing.`);
  }
  if (typeof family !== "string" || !Object.hasOwn(families, family)) {
    throw new ConfigError((family === null ? "config.json: model_type is missing."
      : `config.json: model_type ${shown(family)} is not a family that is known here.`)
      + ` Known are ${Object.keys(families).sort().join(", ")}.`);
  }
  const inner = has("text_config") ? config.text_config?.model_type : null; // may be anything
  if (typeof inner === "string" && Object.hasOwn(families, `${family}/${inner}`)) {
    family += `/${inner}`;
  }
  const table = families[family];
  for (const part of inside) {
    let found = (has(part) ? config[part] : null) ?? {};
    if (table.replaced && has(`${part}_dict`)) found = config[`${part}_dict`] ?? found;
    if (table.flat === part && (config[part] ?? null) === null && has("hidden_size")) {
      found = Object.fromEntries(Object.entries(config).filter(([key]) =>
        !key.includes(".") && !inside.includes(key) && !rules.outer_keys.includes(key)));
    }
    if (typeof found !== "object" || Array.isArray(found)) {
      throw new ConfigError(`config.json: ${part} must be an object, got ${shown(found)}`);
    }
    if (["text_config", ...table.needs ?? []].includes(part) && !Object.keys(found).length) {
      throw new ConfigError(`config.json: a ${family} model needs ${part}, and it is missing`);
    }
    config = { ...config, ...Object.fromEntries(Object.entries(found)
      .map(([key, value]) => [`${part}.${key}`, value])) };
  }
  config = plain(config, table);
  const foreign = ownCode(config, rules)
    .filter((entry) => !(table.own_code ?? []).includes(entry.split("--").pop()));
  if (foreign.length) {
    throw new ConfigError("config.json: auto_map names code of its own "
      + `(${foreign.join(", ").slice(0, 160)}); what that builds is not known here. If it is `
      + `transformers' ${family} after all, remove auto_map.`);
  }
  for (const [key, counted] of Object.entries(table.only ?? {})) {
    const same = (value) => JSON.stringify(value) === JSON.stringify(config[key])
      && Math.abs(config[key]) !== Infinity; // 1e999, which JSON has no word for
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
function labelsOf(config, { defaults }) {
  const names = config.id2label ?? {};
  if (typeof names !== "object" || Array.isArray(names)) {
    throw new ConfigError(`config.json: id2label must be an object, got ${shown(names)}`);
  }
  const labels = config.num_labels || Object.keys(names).length
    || (defaults.num_labels ?? 2);
  if (!Number.isSafeInteger(labels) || labels < 1) {
    throw new ConfigError(`num_labels must be a positive integer, got ${shown(labels)}`);
  }
  return labels;
}

/** Sizes that do not fit one another, of which transformers builds no model. */
function checkFits(table, symbols, config) {
  for (const rule of table.fits ?? []) {
    const [, size, sign, other, usual] = rule.match(/^(.*) ([/=]) ([\w.]+)(?: \| (\d+))?$/);
    const there = usual && (config[other.split(".")[0]] ?? null) !== null;
    const given = symbols.get(other) ?? config[other] ?? Number(there ? usual : other);
    if (!Number.isSafeInteger(given) || given < 1) continue;
    const found = evaluate(size, symbols);
    if (sign === "/" ? found % given : found !== given) {
      throw new ConfigError(`config.json: ${size} must be ${sign === "/" ? "a multiple of"
        : "equal to"} ${other}, as transformers asks; got ${found} and ${given}`);
    }
  }
  const key = table.parts?.includes("text_config") ? "text_config.layer_types" : "layer_types";
  const layers = symbols.get("layers");
  const counted = Object.values(table.lists ?? {}).some((rule) => rule.key === key);
  if (Array.isArray(config[key]) && config[key].length !== layers && !counted) {
    throw new ConfigError(`config.json: ${key} lists ${config[key].length} layers, and the model `
      + `has ${layers}; transformers refuses that`);
  }
}

/** What `explorer.memory_record` finds for a model, for a configuration pasted into the page. */
function readConfig(given, families, rules) {
  const [family, table, config] = tableOf(given, families, rules);
  const task = taskOf(config, family, table);
  const symbols = new Map([["labels", labelsOf(config, table)]]);
  const assumed = new Map();
  for (const line of table.symbols.trim().split("\n")) {
    const [name, rule] = line.split(/=(.*)/s);
    symbols.set(name.trim(), resolve(rule, symbols, config, table, family, assumed));
  }
  for (const name of ["layers", "d", "ff", "heads", "vocab"]) {
    if (symbols.get(name) < 1) throw new ConfigError(`config.json: ${name} must be positive`);
  }
  checkFits(table, symbols, config);
  const onTop = (table.heads[task] ?? "").split("\n").map((line) => line.trim())
    .filter((line) => !line.startsWith("root "));
  for (const line of onTop.filter((each) => /^\w+ = /.test(each))) {
    symbols.set(line.split(" = ")[0], Number(line.split(" = ")[1]));
  }
  const head = onTop.filter((line) => !line.includes(" = ")).join("\n");
  const lists = Object.fromEntries(Object.entries(table.lists ?? {}).map(([name, rule]) =>
    [name, listed({ ...rule, old: rules.old_kinds }, symbols.get("layers"), config, family)]));
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
  const fused = [...table.fused ?? [], ...table.refused ?? [], ...other];
  const groups = new Set(rows.flatMap(({ path }) => path.split(".").slice(0, -1)));
  const counted = (row) => !copied(row) && !fused.includes(row.leaf)
    && !groups.has(row.leaf) && !/^(\d+|{.*})$/.test(row.leaf); // a number means blocks, too
  for (const { leaf, unit, count } of linear.filter(counted)) {
    each.set(leaf, (each.get(leaf) ?? 0) + unit * count);
  }
  const units = [...each];

  const heads = Object.values(rules.saved).flat();
  const outer = table.modules.trim().split(".")[0];
  const root = (table.heads[task] ?? "").split("\n").map((line) => line.trim())
    .filter((line) => line.startsWith("root ")).map((line) => line.slice(5)).pop() ?? outer;
  const inner = task === "FEATURE_EXTRACTION" ? "" : `${root}.`;
  const about = {
    rows, symbols, lists, table, family, rules: rules.bases, notes: rules.notes,
    rename: (path) => (path.startsWith(`${outer}.`) ? inner + path.slice(outer.length + 1) : path),
    isHead: (row) => row === top
      || (task !== "IMAGE_CLS" && heads.includes(row.path.split(".")[0])),
  };
  const { note: storedNote, ...bases } = basesOf(about, total, config.quantization_config);
  const everything = units.map(([leaf]) => leaf).filter((leaf) => leaf !== top?.leaf);
  if (!Number.isSafeInteger(64 * total) || units.some(([, n]) => n > 1e12)) {
    throw new ConfigError("config.json: these sizes make a model too large to count exactly");
  }
  const notes = [
    table.note ?? "",
    rows.some((row) => row.kind === "stack" && isExpert(row)) ? rules.notes.experts : "",
    assumed.size ? rules.notes.assumed.replace("{family}", family)
      .replace("{taken}", [...assumed].map((pair) => pair.join(" = ")).join(", ")) : "",
    storedNote,
    ownCode(config, rules).length ? rules.notes.auto_map : "",
  ].filter(Boolean);
  const cache = cacheOf({ family, config, symbols, lists, task, rules: rules.serving });
  const whyNot = whyNotEstimated(table, rows, symbols, rules.not_estimated);
  return {
    total, saved, units, ...bases, notes, head: top?.leaf ?? null,
    targets: table.lora ?? everything, why_not: whyNot,
    cache: typeof cache === "string" ? null : cache,
    no_cache: typeof cache === "string" ? cache : "",
    kept: whyNot ? null : keptOf(rows, linear.filter(counted), symbols, top, rules.kept),
    trained: trainedOf(rows, linear.filter(counted), rows.filter(copied),
      (row) => row.kind === "embedding" || row === top || inside(row, whole)),
  };
}

/** What an optimizer's state is counted from, as `explorer.memory_record` has it. */
function trainedOf(rows, targets, copies, isOuter) {
  const alike = (tensors) => {
    const found = new Map();
    for (const [shape, hidden, count] of tensors) {
      const key = `${shape} ${hidden}`;
      found.set(key, [shape, hidden, (found.get(key)?.[2] ?? 0) + count]);
    }
    return [...found.values()];
  };
  const tensors = (row, weight) => [
    ...weight ? [[row.kind === "linear" ? row.sizes.toReversed() : row.sizes, !isOuter(row)
      && !(row.kind === "stack" && row.leaf.includes("embedding")), row.count]] : [],
    ...row.biased ? [[[row.out], true, row.count]] : [],
  ];
  const lora = {};
  for (const { leaf, sizes, count } of targets) (lora[leaf] ??= []).push([sizes, true, count]);
  return {
    full: alike(rows.flatMap((row) => tensors(row, !row.tied))),
    saved: alike(copies.flatMap((row) => tensors(row, true))),
    lora: Object.fromEntries(Object.entries(lora).map(([leaf, each]) =>
      [leaf, alike(each).map(([sizes, , count]) => [...sizes, count])])),
  };
}

const isExpert = ({ path }) => path.includes(".experts.");

/** Why activations are not estimated, as `accounting.why_not_estimated` says it; or nothing. */
function whyNotEstimated(table, rows, symbols, reasons) {
  if (table.not_estimated) return table.not_estimated;
  const parts = (table.parts ?? []).filter((part) => table.symbols.includes(`${part}.`));
  if (parts.length) return reasons.parts.replace("{named}", parts.join(", "));
  if (table.lists) return reasons.lists.replace("{named}", Object.keys(table.lists).join(", "));
  const convolution = rows.find(({ kind, leaf, sizes }) =>
    kind === "stack" && leaf === "weight" && sizes.length > 2);
  if (convolution) {
    return reasons.convolution.replace("{named}", convolution.path.split(".").at(-2));
  }
  return rows.some(isExpert) && !symbols.has("active") ? reasons.active : "";
}

/** What `explorer._kept_record` finds: bytes that all layers together keep of each token. */
function keptOf(rows, targets, symbols, top, { number, attended, logit, gated }) {
  const isInside = ({ path }) => /\.({[^}]*}|\d+)\./.test(path);
  const inside = rows.filter(isInside);
  const ff = symbols.get("ff")
    ?? Math.max(...inside.filter(({ linear }) => linear).map(({ sizes }) => sizes[0]));
  const experts = inside.filter(isExpert).map(({ sizes }) => sizes[0]);
  const active = symbols.get("active");
  let always = 0;
  let full = 0;
  const inputs = new Map(); // one for all layers of a place that read the same
  const shared = (row) => `${row.path.slice(0, -row.leaf.length)} ${row.sizes[0]}`;
  for (const row of inside) {
    const { leaf, sizes, out, count } = row;
    if (row.linear) {
      if (sizes[0] !== ff) always += count * out;
      if (Object.hasOwn(gated, leaf)) always += count * Math.floor(out / gated[leaf]);
      if (!inputs.has(shared(row))) {
        inputs.set(shared(row), []);
        full += count * sizes[0];
      }
      if (targets.includes(row)) inputs.get(shared(row)).push(row);
    } else if (row.kind === "norm") {
      full += count * out;
    } else if (isExpert(row) && leaf.endsWith("_proj")) {
      const width = Math.floor(row.size / sizes[0] / symbols.get("d"));
      if (leaf === "gate_up_proj") always += count * Math.floor((active * 3 * width) / 2);
      full += count * active * (leaf === "down_proj" ? width : symbols.get("d"));
    } else if (experts.includes(sizes[0]) && sizes.length === 2 && leaf === "weight") {
      always += count * sizes[0];
    }
  }
  const inner = {};
  for (const { leaf, count } of targets) inner[leaf] = (inner[leaf] ?? 0) + 4 * count;
  const layers = symbols.get("layers") + (symbols.get("decoder_layers") ?? 0);
  const vocabulary = top ? symbols.get("vocab") : 0;
  /** All this where a number has so many bytes. */
  const on = (base) => {
    const bytes = number[base];
    const norms = (these) => these.filter(({ kind }) => kind === "norm").reduce((sum, row) =>
      sum + row.count * row.out * (row.biased ? bytes : 4), 0); // RMSNorm's input is in 32 bits
    const together = new Map();
    for (const group of inputs.values()) {
      const all = group.map(({ leaf }) => leaf);
      // LoRA in 32 bits copies what has 16, each layer for itself.
      for (const leaves of bytes < 4 ? all.map((leaf) => [leaf]) : [all]) {
        if (!leaves.length) continue;
        const [, sum] = together.get(leaves.join()) ?? [leaves, 0];
        together.set(leaves.join(), [leaves, sum + 4 * group[0].count * group[0].sizes[0]]);
      }
    }
    return {
      always: bytes * always + norms(inside) + attended * symbols.get("heads") * layers,
      full: bytes * full, inputs: [...together.values()], inner, layers,
      layer_inputs: bytes * symbols.get("d") * layers,
      outside: norms(rows.filter((row) => !isInside(row))),
      loss: logit[base] * vocabulary, logits: bytes * vocabulary,
    };
  };
  return { narrow: on("bfloat16"), wide: on("float32") };
}

/** JSON as people have it: a comma before a closing brace, or as Python prints a configuration. */
function parseConfig(text) {
  const names = { True: "true", False: "false", None: "null" };
  for (const name of ["NaN", "Infinity", "nan", "inf"]) { // text, and so no size
    names[name] = names[`-${name}`] = '"not finite"';
  }
  let inner = text.replace(/[\u00a0\u200b-\u200d\u2028\u2029\u2060\ufeff]/g, " ").trim();
  const [from, to] = [inner.indexOf("{"), inner.lastIndexOf("}")];
  if (from < to) inner = inner.slice(Math.max(0, from), to + 1); // no code fence, no prompt
  if (!inner.includes('"')) inner = inner.replace(/[\u201c\u201d]/g, '"');
  // A text without its end reaches to the end: else each quote in it would be tried in its turn.
  const json = inner.replace(
    /(["'])(?:(?!\1)[^\\]|\\[^]?)*(?:\1|$)|,(?=\s*[}\]])|-?\b[A-Za-z][\w.]*/g, (token) => {
      if (token[0] === "'" && token.length > 1 && token.endsWith("'")) {
        const inside = token.slice(1, -1).replaceAll("\\'", "'");
        return `"${inside.replace(/(?<!\\)"/g, '\\"')}"`;
      }
      if (token.startsWith("torch.")) return `"${token}"`;
      return token === "," ? "" : names[token] ?? token;
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
  let config, record;
  try {
    config = parseConfig(text);
    record = readConfig(config, families, rules);
  } catch (error) {
    if (!(error instanceof RangeError) && error.name !== "InternalError") throw error; // Firefox's
    throw new ConfigError("config.json has braces inside braces, too deep for any model");
  }
  const given = typeof config._name_or_path === "string" ? config._name_or_path.slice(0, 60) : "";
  return { ...record, name: `Pasted: ${given || config.model_type}` };
}

