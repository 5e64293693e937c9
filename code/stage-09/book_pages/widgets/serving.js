// What a model keeps of a text while it is served, by the rules of serving.py.

/** Numbers that a model keeps of each sequence, as `serving.cache_record`; or as a text, why not. */
function cacheOf({ family, config, symbols, lists, task, rules }) {
  const { caches, tasks, reasons, odd_keys: oddKeys } = rules;
  if (!tasks.includes(task)) return reasons.task;
  if (!Object.hasOwn(caches, family)) return reasons.family;
  const rule = caches[family];
  const part = rule.part ?? "";
  const of = (key, usual) => (Object.hasOwn(config, part + key) ? config[part + key] : usual);
  const refuse = (key) => fill(reasons.key, { key });
  const odd = oddKeys.find((key) => !isEmpty(of(key, null)));
  if (odd) return refuse(odd);
  const layers = symbols.get(rule.layers ?? "layers");
  const token = evaluate(rule.token, symbols);
  const record = (windows, linear) => {
    const most = [...new Set(windows)].sort((a, b) => a - b);
    return {
      tokens: most.map((one) => [token * windows.filter((each) => each === one).length, one]),
      conv: linear * evaluate(rule.conv ?? "0", symbols),
      state: linear * evaluate(rule.state ?? "0", symbols),
      cross: Number(task === "SEQ_2_SEQ_LM") * layers * evaluate(rule.cross ?? "0", symbols),
    };
  };
  if (rule.conv) {
    const linear = rule.list
      ? lists[rule.list].filter((kind) => kind !== "full_attention").length : layers;
    return record(Array(layers - linear).fill(0), linear);
  }
  if (!Object.hasOwn(rule, "window")) { // yet the cache of any model goes by such a key
    return of("sliding_window", null) === null ? record(Array(layers).fill(0), 0)
      : refuse("sliding_window");
  }
  let window = of("sliding_window", rule.window);
  if (rule.switch && isEmpty(of(rule.switch, false))) window = null;
  if (window !== null && (!Number.isSafeInteger(window) || window < 2)) return refuse("sliding_window");
  const kinds = of("layer_types", null);
  let slides = Array(layers).fill(true);
  if (kinds !== null) {
    const known = window ? ["full_attention", "sliding_attention"] : ["full_attention"];
    if (!Array.isArray(kinds) || kinds.length !== layers
      || !kinds.every((kind) => known.includes(kind))) return refuse("layer_types");
    slides = kinds.map((kind) => kind === "sliding_attention");
  } else if (rule.given && (window || !rule.switch)) {
    return refuse("layer_types");
  } else if (rule.every || rule.from) {
    const [key, usual] = rule.every ?? rule.from;
    const at = key === null ? usual : of(key, usual);
    if (!Number.isSafeInteger(at) || at < 1) return refuse(key);
    if (rule.every && window === null) return refuse("sliding_window");
    slides = slides.map((_, i) => (rule.every ? Boolean((i + 1) % at) : i >= at));
  }
  return record(slides.map((each) => (each && window ? window - 1 : 0)), 0);
}

/** Bytes to serve: weights, cache, adapters; as `serving.serving_bill`. */
function servingBill(record, { base, length, batch, rank, targets, adapters }) {
  const units = new Map(record.units);
  const stored = targets.reduce((sum, leaf) => sum + units.get(leaf) * rank, 0)
    + (targets.length ? record.saved : 0);
  const width = base === "float32" ? 4 : 2;
  const { tokens, conv, state, cross } = record.cache;
  const kept = tokens.reduce((sum, [numbers, most]) => sum + numbers
    * Math.min(length, most || length), 0);
  return [
    ["weights", record.loaded[base]],
    ["cache of keys and values", batch * (width * (kept + cross * length + conv) + 4 * state)],
    ["adapters", adapters * width * stored],
  ];
}
