"""Draw the book's mark and cover: a frozen square, and beside it two thin matrices that make its update.

    python tools/mark.py            writes the mark (SVG), the cover (SVG) and the social card (PNG)

The card is drawn from the same numbers with Pillow, since those who show it want no SVG.
"""
