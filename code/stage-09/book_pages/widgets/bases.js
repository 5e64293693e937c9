// How a pasted model's base lies in memory: what bases.py says, by the same formulas.
//
// Pasted lists of names come from strangers: they are compared as texts, and of patterns only the
// few are tried that stay quick.

const fill = (text, values) => text.replace(/{(\w+)}/g, (all, name) =>
  (Object.hasOwn(values, name) ? values[name] : all));
const isSize = (value, most) => Number.isSafeInteger(value) && value > 0 && value < most;
const isEmpty = (value) => !value || (typeof value === "object" && !Object.keys(value).length);

/** The paths of all modules that a row of a table stands for. */
function namesOf(row, { symbols, lists, rename }) {
  const spans = [...row.path.matchAll(/{([^}]*)}/g)].map(([, span]) => {
    if (span.includes("=")) {
      const [name, kind] = span.split("=");
      return lists[name].flatMap((each, i) => (each === kind ? [i] : []));
    }
    const [stop, start = 0] = span.split(":").reverse().map((part) => evaluate(part, symbols));
    return Array.from({ length: stop - start }, (_, i) => i + start);
  });
  return spans.reduce((names, numbers) => names.flatMap((name) =>
    numbers.map((n) => name.replace(/{[^}]*}/, n))), [rename(row.path)]);
}

/** Which of the patterns make transformers leave a module alone. */
function meant(path, patterns) {
  const whole = new Set([path]);
  for (let at = 0; at < path.length; at++) {
    whole.add(path.slice(at));
    if (path[at] === ".") whole.add(path.slice(0, at)).add(path.slice(0, at + 1));
  }
  return patterns.filter((pattern) => (pattern.includes("*")
    ? new RegExp(`^(?:${pattern})(?:(?<=\\.)|(?=\\.|$))`).test(path) : whole.has(pattern)));
}

const expertsOf = ({ rows }) => rows.filter(({ path, kind }) =>
  kind === "stack" && path.includes(".experts."));
const blockOf = ({ rows, rename, rules }) => rules.blocks.find((block) =>
  rows.some(({ path }) => rename(path).startsWith(block)));
const parentOf = (path) => path.slice(0, path.lastIndexOf("."));

/** The rows that a format converts, and how many modules of each. */
function convertedBy(stored, about) {
  const { rows, rules, table, isHead } = about;
  const { converts } = rules.formats[stored.format];
  const linear = rows.filter(({ kind }) => kind === "linear"
    || (kind === "conv1d" && ["all", "blocks"].includes(converts)));
  const counted = (row, keeps) => [row, keeps ? namesOf(row, about).filter(keeps).length : row.count];
  let found = [];
  if (converts === "blocks") {
    const block = blockOf(about);
    const { picks } = stored;
    found = linear.filter(({ path }) => block && about.rename(path).startsWith(block))
      .map((row) => counted(row, picks && ((name) => picks.some((end) => name.endsWith(end)))));
  } else if (["all", "linear"].includes(converts)) {
    const { skips, head } = stored;
    found = linear.filter((row) => !row.tied && !((skips === null || head) && isHead(row))
      && !(table.not_quantized ?? []).some((name) => `.${about.rename(row.path)}`.endsWith(`.${name}`)))
      .map((row) => counted(row, skips && ((name) => !meant(name, skips).length)));
  }
  return found.filter(([, count]) => count);
}

function convertedExperts(stored, about) {
  const { rules } = about;
  if (!rules.formats[stored.format].experts) return [];
  return expertsOf(about).filter(({ sizes }) => sizes.length === 3).map((row) => [row, stored.skips
    ? namesOf(row, about).filter((name) => !meant(parentOf(name), stored.skips).length).length
    : row.count]).filter(([, count]) => count);
}

const symbolsOf = (row, about, settings) => new Map(Object.entries({
  ...settings, ...row.kind === "stack" ? {
    experts: row.sizes[0], fused: Number(row.leaf === "gate_up_proj"),
    n_out: row.sizes[about.family === "gpt_oss" ? 2 : 1],
    n_in: row.sizes[about.family === "gpt_oss" ? 1 : 2],
  } : { n_in: row.sizes[0], n_out: row.sizes[1] },
}));

/** Why a model's weights are not kept in a format, as `bases.why_not_stored` says it. */
function whyNotStored(stored, about) {
  const { rules, rows, family } = about;
  const format = rules.formats[stored.format];
  const name = stored.format;
  const say = (reason, values = {}) => fill(rules.reasons[reason], { format: name, ...values });
  if (!format.parts) return "";
  if (name === "mxfp4" && family !== "gpt_oss") return say("mxfp4");
  const experts = expertsOf(about);
  if ((/^(gptq|awq)/.test(name) && experts.length)
    || (name === "fp8" && experts.some(({ sizes }) => sizes.length !== 3))) return say("experts");
  if (name.startsWith("gptq") && !blockOf(about)) return say("blocks");
  if (stored.skips !== null && !stored.head && ["all", "linear"].includes(format.converts)) {
    const tied = rows.filter((row) => row.kind === "linear" && row.tied)
      .flatMap((row) => namesOf(row, about)).find((path) => !meant(path, stored.skips).length);
    if (tied) return say("tied", { name: tied });
  }
  const layers = convertedBy(stored, about);
  const stacks = convertedExperts(stored, about);
  if (!layers.length && !stacks.length) return say("none");
  for (const [row] of [...layers, ...stacks]) {
    const symbols = symbolsOf(row, about, stored.settings);
    for (const [size, by] of format.divides ?? []) {
      const whole = evaluate(by, symbols);
      if (whole < rules.all && symbols.get(size) % whole) {
        const picked = namesOf(row, about).find((path) => (stored.picks
          ? stored.picks.some((end) => path.endsWith(end))
          : !meant(row.kind === "stack" ? parentOf(path) : path, stored.skips ?? []).length));
        return say("divides", { name: picked, n_in: symbols.get("n_in"), n_out: symbols.get("n_out") });
      }
    }
  }
  return "";
}

/** Bytes of the frozen weights, part by part; what is not quantized in so many bytes each. */
function frozenBytes(stored, about, total, rest) {
  const format = about.rules.formats[stored.format];
  if (format.bytes) return [format.bytes * total];
  const all = [...convertedBy(stored, about), ...convertedExperts(stored, about)];
  const quantized = all.reduce((sum, [{ size }, count]) => sum + size * count, 0);
  return [...format.parts.map(([, linear], index) => all.reduce((sum, [row, count]) => sum + count
    * evaluate(row.kind === "stack" ? format.experts[index] : linear,
      symbolsOf(row, about, stored.settings)), 0)),
  rest * (total - quantized)];
}

/** All bases of a model: bytes, or why it has none. */
function basesOf(about, total, found) {
  const { stored, method, why } = readStored(found, about);
  const frozen = {};
  const notStored = {};
  const loaded = {};
  for (const base of [...Object.keys(about.rules.formats), "file"]) {
    const one = base === "file" ? stored
      : { format: base, settings: about.rules.formats[base].settings ?? {}, skips: null, picks: null };
    const reason = one ? whyNotStored(one, about) : about.rules.reasons.file;
    const cast = !reason && about.rules.formats[one.format].cast;
    frozen[base] = reason ? [] : frozenBytes(one, about, total, cast ? 4 : 2);
    if (!reason) loaded[base] = frozenBytes(one, about, total, 2).reduce((sum, n) => sum + n, 0);
    if (reason) notStored[base] = reason;
  }
  const format = stored && about.rules.formats[stored.format];
  const file = stored ? {
    labels: [...format.parts.map(([label]) => label), "frozen, not quantized"]
      .map((label) => label[0].toUpperCase() + label.slice(1)),
    narrow: !format.cast,
  } : null;
  const note = isEmpty(found) ? "" : fill(about.notes[stored ? "stored" : "quantization_config"],
    { method, why });
  return { frozen, not_stored: notStored, loaded, file, note };
}

/** How a file says that its weights are stored, as `bases.read_stored` reads it. */
function readStored(given, about) {
  const { rules } = about;
  const found = given && typeof given === "object" && !Array.isArray(given) ? given : {};
  const get = (key) => (Object.hasOwn(found, key) ? found[key] : null);
  const loads = !isEmpty(get("load_in_4bit")) || !isEmpty(get("load_in_8bit"));
  const method = get("quant_method") ?? (loads ? "bitsandbytes" : null);
  const shownMethod = typeof method === "string" ? method.slice(0, 40) : "a method without a name";
  const none = (why) => ({ stored: null, method: shownMethod, why });
  const rule = typeof method === "string" && Object.hasOwn(rules.quantized, method)
    ? rules.quantized[method] : null;
  if (!rule) return none(rules.reasons.method);
  const unknown = unknownKey(found, rule, rules.all);
  if (unknown) return none(unknown);
  const lists = [];
  for (const keys of [rule.skips, rule.picks ? [rule.picks] : []]) {
    const key = keys.find((each) => get(each) !== null);
    const names = key ? listedNames(key, found[key], about) : null;
    if (typeof names === "string") return none(names);
    lists.push(names);
  }
  const of4 = get("bnb_4bit_use_double_quant") ? "nf4+dq" : "nf4";
  const kind = rule.format || (get("load_in_8bit") ? "int8" : get("load_in_4bit") ? of4 : "");
  if (!kind) return none("load_in_4bit");
  const stored = {
    format: kind, settings: { ...rules.formats[kind].settings, ...settingsOf(found, rule, rules.all) },
    skips: lists[0], head: rule.head ?? false, picks: lists[1],
  };
  const why = whyNotStored(stored, about);
  return why ? none(why) : { stored, method: shownMethod, why };
}

/** The first key that is not known, or whose value is not. */
function unknownKey(found, rule, most) {
  const { numbers = {}, group, blocks, needs = [] } = rule;
  const quiet = ["quant_method", ...rule.quiet, ...rule.skips, rule.picks];
  const isKnown = (key, value) => {
    if (Object.hasOwn(numbers, key)) return isSize(value, most) && numbers[key].includes(value);
    if (value === null || quiet.includes(key)) return true;
    if (key === group) return value === -1 || isSize(value, most);
    if (key === blocks) {
      return Array.isArray(value) && value.length === 2 && value.every((each) => isSize(each, most));
    }
    const small = JSON.stringify(typeof value === "string" ? value.toLowerCase() : value);
    return Object.hasOwn(rule.only, key) && rule.only[key].some((one) => JSON.stringify(one) === small);
  };
  const odd = Object.keys(found).sort().find((key) => !isKnown(key, found[key]));
  if (odd !== undefined) return odd.slice(0, 40);
  const missing = needs.find((key) => !Object.hasOwn(found, key));
  const single = blocks && Object.hasOwn(found, blocks) && found[blocks] === null;
  return missing ?? (single && found.scale_fmt === "ue8m0" ? "scale_fmt" : "");
}

/** The settings that the keys give. */
function settingsOf(found, { numbers = {}, group, blocks }, most) {
  const has = (key) => key && Object.hasOwn(found, key);
  const settings = Object.fromEntries(Object.keys(numbers).filter(has).map((key) => [key, found[key]]));
  if (has(group) && found[group] !== null) settings.group = found[group] === -1 ? most : found[group];
  if (has(blocks)) [settings.down, settings.across] = found[blocks] ?? [most, most];
  if (has("scale_fmt") && String(found.scale_fmt).toLowerCase() === "ue8m0") settings.scale = 1;
  if (has("activation_scheme") && String(found.activation_scheme).toLowerCase() === "static") {
    settings.static = 1;
  }
  return settings;
}

/** A list of names; or as a text, what is not known of it. */
function listedNames(key, value, about) {
  const names = Array.isArray(value) && value.some(Array.isArray) ? value.flat() : value;
  const known = (name) => typeof name === "string" && name.split("*").length <= 3
    && /^[\w.-]{1,200}$/.test(name.replaceAll(".*", "."));
  if (!Array.isArray(names) || !names.every(known)
    || names.filter((name) => name.includes("*")).length > about.rules.most_patterns
    || names.length * about.rows.reduce((sum, row) => sum + row.count, 0) > about.rules.most_compared) {
    return key;
  }
  let left = [...new Set(names)];
  for (const row of about.rows) {
    if (!left.length) break;
    for (const path of namesOf(row, about)) {
      const found = new Set(meant(row.kind === "stack" ? parentOf(path) : path, left));
      if (found.size) left = left.filter((name) => !found.has(name));
    }
  }
  return left.length ? fill(about.rules.reasons.nothing, { key, name: left[0] }) : names;
}
