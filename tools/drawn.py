"""Figures on the book's pages: the markup that goes with a figure takes the place of its pixels.

`code/stage-09/book_pages/svg.py` makes it; `book/_static/figures.*` give it looks and behaviour.
"""

import html
import json


def with_figures(text):
    """A notebook's text in which each figure that is drawn as SVG is HTML, with its description.

    Raises
    ------
    ValueError
        A figure without a description.
    """
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            drawn = output.get("metadata", {}).pop("drawn", None)
            if drawn:
                alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
                if not alt:
                    raise ValueError(f"cell {cell['id']} draws a figure and has no description")
                output["data"] = {"text/html": f'<figure class="drawn" aria-label="'
                                               f'{html.escape(alt)}">{drawn}</figure>'}
    return json.dumps(notebook)
