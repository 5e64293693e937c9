// A table that can be filtered: a text field and one select for each column that has few values.
// It only shows and hides rows; every number in them was computed in Python.

function render({ model, el }) {
  const prefix = uniquePrefix();
  const { caption, columns, rows, choose } = model.get("_table");
  const status = h("p", { role: "status", class: "pw-filter-status" });

  const field = (label, control) => h("div", { class: "pw-field" },
    h("label", { for: control.id }, label), control);
  const text = h("input", {
    id: `${prefix}-text`, type: "search", class: "pw-select", placeholder: "model, method, source …",
    onInput: (event) => { model.set("text", event.target.value); model.save_changes(); filter(); },
  });
  const selects = choose.map((column, i) => h("select", {
    id: `${prefix}-${i}`, class: "pw-select", onChange: filter,
  }, h("option", { value: "" }, "all"),
  [...new Set(rows.map((row) => row[column]))].map((value) => h("option", { value }, value))));

  const lines = rows.map((row) => h("tr", {}, row.map((cell, i) => (
    i ? h("td", { class: /^[\d, /]+$/.test(cell) ? "pw-numbers" : null }, cell)
      : h("th", { scope: "row" }, cell)))));
  function filter() {
    const plain = (said) => said.toLowerCase().replace(/[-_\s]+/g, " ");  // llama-3 is llama 3
    const words = plain(text.value).split(" ").filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const all = plain(row.join(" "));
      const hit = words.every((word) => all.includes(word))
        && choose.every((column, c) => !selects[c].value || row[column] === selects[c].value);
      lines[i].hidden = !hit;
      if (hit) shown += 1;
    });
    setText(status, `${shown} of ${rows.length} rows`);
  }

  text.value = model.get("text");
  const changed = () => { text.value = model.get("text"); filter(); };
  model.on("change:text", changed);
  filter();
  el.append(h("section", { class: "peft-widget pw-filter", "aria-label": caption },
    h("div", { class: "pw-controls pw-filter-controls" }, field("Filter", text),
      choose.map((column, i) => field(columns[column], selects[i]))),
    status,
    h("div", { class: "pw-filter-rows", tabindex: "0", role: "region", "aria-label": caption },
      h("table", { class: "pw-table" }, h("caption", {}, caption),
        h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, lines)))));
  return () => model.off("change:text", changed);
}

export default { render };
