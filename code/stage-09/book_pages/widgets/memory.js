// The memory explorer: where the memory goes when a real model is fine-tuned.
//
// Python counted everything that is multiplied and added here (accounting.py); for a configuration
// that a reader pastes, model_config.js did.

const SETTINGS = ["rank", "base", "convention", "optimizer", "length", "batch", "checkpointing",
  "cards", "sharding", "adapters"];

/** A number with its word. */
const counted = (value, word) => `${formatCount(value)} ${value === 1 ? word : `${word}s`}`;

/** Bytes that an optimizer keeps of one tensor, as `optimizers.state_bytes` counts them. */
function stateBytes(row, [block, smallest], shape, width, hidden) {
  const size = shape.reduce((product, n) => product * n, 1);
  if (row.eight_bits && size >= smallest) return row.moments * (size + 4 * Math.ceil(size / block));
  const each = row.eight_bits ? 4 : width;
  if (row.factored && shape.length > 1) return each * shape.slice(0, -2).reduce((one, two) => one * two, 1) * (shape.at(-1) + shape.at(-2));
  const plain = row.others !== null && !(hidden && shape.length === 2);
  return each * size * (plain ? row.others : row.moments);
}

/** Bytes of every item on each card, for full fine-tuning and for LoRA. */
function memoryBill(record, settings, states, overhead) {
  const { rank, targets, base, convention, optimizer, cards, sharding } = settings;
  const units = new Map(record.units);
  const trained = targets.reduce((sum, leaf) => sum + units.get(leaf) * rank, 0);
  const kept = states.conventions[convention];
  const own = states.conventions.fp32;
  // A head that PEFT copies from a base in 16 bits stays in 16 bits.
  const isNarrow = base === "file" ? record.file?.narrow : states.narrow.includes(base);
  const copies = isNarrow ? states.conventions.bf16 : own;
  const saved = targets.length ? record.saved : 0;
  const state = (tensors, width) => tensors.reduce((sum, [shape, hidden, count]) => sum + count
    * stateBytes(states.optimizers[optimizer], states.eight_bits, shape, width, hidden), 0);
  const loras = targets.flatMap((leaf) => record.trained.lora[leaf]).flatMap(
    ([from, to, count]) => [[[rank, from], true, count], [[to, rank], true, count]]);
  const divided = states.divided[sharding];
  /** What a card has of it. */
  const share = (label, bytes) => (cards > 1 && (divided.includes("") || divided.includes(label))
    ? Math.ceil(bytes / cards) : bytes);
  const sides = [{
    key: "full", params: record.total, keeps: (each) => keptFor(record.kept, each, true, null),
    items: [["frozen weights", 0],
      ...kept.lines.map(([label, bytes]) => [label, share(label, record.total * bytes)]),
      ["optimizer state", share("optimizer state", state(record.trained.full, kept.width))]],
  }, {
    key: "lora", params: trained + saved, keeps: (each) => keptFor(record.kept, each, isNarrow, targets),
    items: [["frozen weights",
      record.frozen[base].reduce((sum, bytes) => sum + share("", bytes), 0)],
    ...own.lines.map(([label, bytes], index) =>
      [label, share(label, trained * bytes + saved * copies.lines[index][1])]),
    ["optimizer state", share("optimizer state", state(loras, own.width)
      + (saved ? state(record.trained.saved, copies.width) : 0))]],
  }];
  for (const one of sides) {
    const own = one.items;
    one.needs = (each) => {
      if (!record.kept) return own;
      const { items, other } = one.keeps(each);
      const tensors = totalOf(own) + totalOf(items);
      return [...own, ...items, ["context and fragments", overhead.context + Math.floor(
        overhead.tensors * tensors + overhead["other peak"] * other)]];
    };
    one.activations = record.kept ? one.keeps(settings).items : [];
    one.items = one.needs(settings);
    one.bytes = totalOf(one.items);
  }
  return sides;
}

const totalOf = (items) => items.reduce((sum, [, bytes]) => sum + bytes, 0);

/**
 * What the forward pass keeps for the backward pass, and the smaller of two peaks; `targets` are
 * null where everything trains.
 */
function keptFor({ narrow, wide }, { rank, length, batch, checkpointing }, isNarrow, targets) {
  const kept = isNarrow ? narrow : wide;
  const tokens = batch * length;
  const trained = targets && kept.inputs.filter(([leaves]) => leaves.some((leaf) =>
    targets.includes(leaf)));
  const more = targets === null ? kept.full
    : totalOf(trained) + targets.reduce((sum, leaf) => sum + rank * kept.inner[leaf], 0);
  const inside = tokens * (kept.always + more);
  const loss = tokens * kept.loss;
  const layer = tokens * kept.logits + Math.floor(inside / kept.layers);
  const peak = loss ? [["logits and their gradient", loss]] : [];
  if (!checkpointing) {
    return { items: [["inside the layers", inside + tokens * kept.outside], ...peak], other: 0 };
  }
  const inputs = ["layer inputs", tokens * (kept.layer_inputs + kept.outside)];
  return {
    items: [inputs, ...layer >= loss ? [["one layer, recomputed", layer]] : peak],
    other: Math.min(layer, loss),
  };
}

/** The largest batch of this length, and the longest sequences of this batch, that fit. */
function largestThatFit(side, settings, memory) {
  const fits = (change) => totalOf(side.needs({ ...settings, ...change })) <= memory;
  return Object.fromEntries(["batch", "length"].map((name) => {
    let most = 0;
    let tooMany = 1;
    while (fits({ [name]: tooMany })) [most, tooMany] = [tooMany, 2 * tooMany];
    while (tooMany - most > 1) {
      const middle = Math.floor((most + tooMany) / 2);
      if (fits({ [name]: middle })) most = middle;
      else tooMany = middle;
    }
    return [name, most];
  }));
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
    // The picture reaches as far as the GPU and LoRA need, but the GPU stays a part that one can
    // see; a longer bar is cut off with an arrow.
    const end = Math.min(6 * memory, Math.max(1.25 * memory, 1.1 * sides[1].bytes));
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
  const overhead = get("_overhead");
  const labels = { full: "Full fine-tuning", lora: "LoRA" };
  let refused = false; // the last text that was pasted: then no model is shown
  let redraw = () => {};
  const record = () => records.get(get("model")) ?? records.values().next().value;
  const change = changer(model);
  /** Keep the chosen target modules where the model has them, else take PEFT's default. */
  const pick = (name) => {
    const { units, targets, frozen } = records.get(name);
    const kept = get("targets").filter((leaf) => new Map(units).has(leaf));
    refused = false;
    // The base that the file tells of; else the chosen one, if the model has it.
    const bases = ["file", get("base"), "bfloat16"].filter((base) => frozen[base].length);
    change({ model: name, targets: kept.length ? kept : targets, base: bases[0] });
    redraw(); // the model may be the one before
  };

  const which = dropDown({
    id: `${prefix}-model`, name: "model", label: "Model", onPick: pick,
    options: [...records].map(([name, { total }]) => [name, `${name}: ${formatShort(total)}`]),
  });
  const listOf = (name, label, options) => dropDown({
    id: `${prefix}-${name}`, name, label, options,
    onPick: (value) => change({ [name]: ["gpu", "cards"].includes(name) ? Number(value) : value }),
  });
  const base = listOf("base", "Frozen weights, LoRA", get("_bases"));
  const convention = listOf("convention", "Kept as, full fine-tuning", get("_conventions"));
  const optimizer = listOf("optimizer", "Optimizer", get("_optimizers"));
  const gpu = listOf("gpu", "GPU", get("_gpus"));
  const cards = listOf("cards", "How many of them", get("_cards"));
  const sharding = listOf("sharding", "They divide", get("_shardings"));
  const rank = colour(slider({
    id: `${prefix}-rank`, name: "rank", label: "LoRA rank", values: get("_ranks"),
    say: (value) => `rank ${value}`, onMove: (value) => change({ rank: value }),
  }), get("_lora_color"));

  const length = slider({
    id: `${prefix}-length`, name: "length", label: "Tokens per sequence", values: get("_lengths"),
    say: (value) => counted(value, "token"), onMove: (value) => change({ length: value }),
  });
  const batch = slider({
    id: `${prefix}-batch`, name: "batch", label: "Sequences on each card", values: get("_batches"),
    say: (value) => counted(value, "sequence"), onMove: (value) => change({ batch: value }),
  });
  const again = choice({
    prefix, name: "checkpointing", legend: "Gradient checkpointing",
    options: [["off", "Off"], ["on", "On: slower, keeps less"]],
    onPick: (value) => change({ checkpointing: value === "on" }),
  });

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

  const { headline, figure, sentence } = largeFigure();
  colour(headline, get("_lora_color"));
  const spoken = announcer();
  const bars = memoryBars(labels, colors);
  const caption = h("caption", {});
  const body = h("tbody", {});
  const table = h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" }, caption,
    h("thead", {}, h("tr", {}, ["Where memory goes", labels.full, labels.lora]
      .map((text) => h("th", { scope: "col" }, text)))), body));
  const detail = h("p", { class: "pw-note" });
  const adapters = colour(slider({
    id: `${prefix}-adapters`, name: "adapters", label: "Adapters on one base", values: get("_many"),
    say: (value) => counted(value, "adapter"), onMove: (value) => change({ adapters: value }),
  }), get("_lora_color"));
  const served = h("tbody", { "data-table": "serving" });
  const servingNote = h("p", { class: "pw-note" });
  const serving = h("details", { class: "pw-details" }, h("summary", {}, "For serving"), adapters,
    h("div", { class: "pw-scroll" }, h("table", { class: "pw-table" },
      h("caption", {}, "One card, each sequence as long as chosen above"),
      h("thead", {}, h("tr", {}, ["What a server holds", "LoRA"].map((text) =>
        h("th", { scope: "col" }, text)))), served)), servingNote);
  /** Rows of what a server holds, or why its cache is not counted. */
  const showServing = (now, settings, memory) => {
    adapters.show(settings.adapters);
    const items = now.cache && settings.targets.length ? servingBill(now, settings) : [];
    const total = totalOf(items);
    const row = ([label, bytes]) => h("tr", { "data-item": label },
      h("th", { scope: "row" }, label[0].toUpperCase() + label.slice(1)),
      h("td", { "data-bytes": bytes }, gigabytes(bytes)));
    served.replaceChildren(...items.map(row), ...items.length ? [row(["total", total])] : []);
    const fitting = total <= memory ? "fits" : "does not fit";
    setText(servingNote, items.length ? `That ${fitting} into ${formatBytes(memory)}. `
      + "The cache is counted as transformers keeps it. Weights are as they are loaded; cache and "
      + "adapters have 16 bits, or 32 on a base in 32. Not included: activations of the step, what "
      + "a server keeps for itself." : now.cache ? "" : `The cache is not counted: ${now.no_cache}.`);
  };

  /** After a refusal: no figure of another model may stand there as if it were this one's. */
  const clear = (why) => {
    setText(figure, "Nothing is counted");
    setText(sentence, `because ${why}.`);
    bars.hidden = true;
    rank.show(get("rank"), "");
    setText(caption, "");
    body.replaceChildren();
    served.replaceChildren();
    setText(servingNote, "");
    delete body.dataset.trainable;
    delete body.dataset.total;
    setText(detail, "");
    return `${figure.textContent} ${sentence.textContent}`;
  };

  const draw = () => {
    if (refused) {
      which.select.selectedIndex = -1;
      return clear("the pasted configuration was refused; choose a model, or correct it");
    }
    const now = record();
    for (const option of base.select.options) option.disabled = !now.frozen[option.value].length;
    base.show(get("base"));
    if (!now.frozen[get("base")].length) {
      return clear(`LoRA's frozen weights can't be kept so: ${now.not_stored[get("base")]}; `
        + "choose others");
    }
    const chosen = get("targets").filter((leaf) => new Map(now.units).has(leaf));
    const settings = Object.fromEntries(SETTINGS.map((name) => [name, get(name)]));
    settings.targets = chosen;
    const sides = memoryBill(now, settings, states, overhead);
    const [full, lora] = sides;
    const memory = get("_gpu_bytes")[get("gpu")];

    which.show(records.has(get("model")) ? get("model") : records.keys().next().value);
    convention.show(get("convention"));
    optimizer.show(get("optimizer"));
    gpu.show(String(get("gpu")));
    cards.show(String(get("cards")));
    sharding.show(get("sharding"));
    sharding.select.disabled = get("cards") === 1;
    rank.show(get("rank"), `${formatCount(lora.params)} parameters`);
    const tokens = settings.batch * settings.length;
    const many = settings.cards > 1;
    length.show(settings.length);
    batch.show(settings.batch, now.kept ? `${formatCount(tokens)} tokens` : "not estimated");
    again.show(settings.checkpointing ? "on" : "off");
    for (const input of [length, batch, again].flatMap((node) => [...node.querySelectorAll("input")])) {
      input.disabled = !now.kept;
    }
    showTargets(now);

    const all = now.total + lora.params;
    const percent = `${((100 * lora.params) / all).toFixed(4)}\u00a0%`;
    const fits = (side) => (side.bytes <= memory ? "fits" : "does not fit");
    setText(figure, chosen.length ? `${formatCount(lora.params)} of ${formatCount(all)}` : "none");
    const rest = chosen.length
      ? `parameters are trained by LoRA: ${percent}. ${now.kept
        ? `With ${formatCount(tokens)} tokens ${many ? "on each card" : "in a batch"}, LoRA needs about `
        : `Activations are not estimated: ${now.why_not}. Before them, LoRA needs `}`
        + `${formatBytes(lora.bytes)} and ${fits(lora)} into ${formatBytes(memory)}; full `
        + `fine-tuning needs ${formatBytes(full.bytes)} and ${fits(full)}.`
      : "Choose at least one target module: LoRA has nothing to train.";
    setText(sentence, rest);
    bars.hidden = false;
    bars.show(sides, memory);
    setText(caption, `${which.select.selectedOptions[0]?.textContent ?? ""} parameters; GB = 10⁹ bytes${
      now.kept ? "; activations are an estimate" : ""}${many
      ? `; on each of ${settings.cards} cards` : ""}`);
    const names = [...new Set(sides.flatMap(({ items }) => items.map(([label]) => label)))];
    const kept = new Set(lora.activations.map(([label]) => label));
    const row = (label, cells, swatch) => h("tr", { "data-item": label },
      h("th", { scope: "row" }, swatch,
        kept.has(label) ? `Activations: ${label}` : label[0].toUpperCase() + label.slice(1)),
      cells.map((bytes, index) => h("td", { "data-side": sides[index].key, "data-bytes": bytes },
        bytes ? gigabytes(bytes) : "\u2013")));
    const most = now.kept ? sides.map((side) => largestThatFit(side, settings, memory)) : [];
    const fitting = (name, label, unit) => h("tr", { "data-fits": name },
      h("th", { scope: "row" }, label), most.map((each, index) =>
        h("td", { "data-side": sides[index].key, "data-most": each[name] },
          each[name] ? formatCount(each[name]) + unit : "none fits")));
    body.replaceChildren(
      ...names.map((label) => row(label,
        sides.map(({ items }) => items.find(([name]) => name === label)?.[1] ?? 0),
        colour(h("span", { class: "pw-swatch" }), colors[label]))),
      row("total", sides.map(({ bytes }) => bytes)),
      ...now.kept ? [
        fitting("batch", `Largest batch, ${formatCount(settings.length)} tokens each`, ""),
        fitting("length", `Longest text, batch of ${formatCount(settings.batch)}`, "\u00a0tokens"),
      ] : []);
    showServing(now, settings, memory);
    body.dataset.trainable = lora.params;
    body.dataset.total = now.total;
    const parts = get("base") === "file" ? now.file.labels : get("_frozen_labels")[get("base")];
    setText(detail, `${many ? "Before cards divide them: " : ""}${parts.map((label, index) =>
      `${label}: ${gigabytes(now.frozen[get("base")][index])}`).join("; ")}. `
      + [...now.notes, get("_note")].join(" "));
    return `${figure.textContent} ${rest}`;
  };

  const root = widgetRoot("Memory explorer",
    h("div", { class: "pw-controls" },
      h("div", { class: "pw-group" }, which, gpu, cards, sharding, rank, targets),
      h("div", { class: "pw-group" }, base, convention, optimizer, length, batch, again)),
    paste, headline, spoken, bars, table, detail, serving);
  draw();
  redraw = oncePerFrame(() => spoken.say(draw()));
  const events = ["model", "targets", "gpu", ...SETTINGS].map((name) => `change:${name}`);
  events.forEach((event) => model.on(event, redraw));
  el.append(root);
  return () => events.forEach((event) => model.off(event, redraw));
}

export default { render };
