"""A table that readers can filter, with no kernel behind it (the page "Numbers in the wild")."""

import traitlets

from book_pages.widgets import explorer

_STYLE = """
.pw-filter-controls { grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.pw-filter-status { margin: 0.6rem 0 0.3rem !important; color: var(--soft); }
.pw-filter-rows { max-height: 30rem; overflow: auto; }
.peft-widget.pw-filter .pw-table :is(th, td) { white-space: normal; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; min-width: 6.5rem; }
.peft-widget.pw-filter .pw-table .pw-numbers { overflow-wrap: normal; min-width: 8rem; }
.peft-widget.pw-filter .pw-table td:nth-last-child(-n+2) { min-width: 15rem; }
.peft-widget.pw-filter .pw-table tr[hidden] { display: none; }
"""


class FilterTable(explorer.Widget):
    """Rows of text with a search field, and a select for each column named in `choose`.

    Parameters
    ----------
    columns : list of str
    rows : list of list of str
        The first cell names its row.
    choose : list of str
        Columns with few different values.
    caption : str
    """

    _esm = explorer.front_end("filter")
    _css = explorer.Widget._css + _STYLE

    text = traitlets.Unicode().tag(sync=True)
    _table = traitlets.Dict().tag(sync=True)

    def __init__(self, columns, rows, *, choose=(), caption=""):
        for column in choose:
            if column not in columns:
                raise ValueError(f"choose names {column!r}; the columns are {', '.join(columns)}")
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"a row has {len(row)} cells for {len(columns)} columns: {row}")
        super().__init__(_table={
            "caption": caption, "columns": list(columns),
            "rows": [[str(cell) for cell in row] for row in rows],
            "choose": [list(columns).index(column) for column in choose]})

    def fallback(self):
        return self._table["caption"], self._table["columns"], self._table["rows"]
