"""Draw the book's mark and its card: a frozen square, and two thin matrices that make its update.

    python tools/mark.py            writes book/_static/mark.svg and book/_static/card.png

The card is what other sites show beside a link to the book; they want no SVG.
"""

from pathlib import Path

import matplotlib
import yaml
from PIL import Image, ImageDraw, ImageFont
from whole import replacing, write_whole

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static"
#: Left, top, width, height in a square of 64, and colour: the weight, then A above and B beside it.
PARTS = [(4, 20, 40, 40, "#8a94a3"), (4, 6, 40, 9, "#0072b2"), (49, 20, 9, 40, "#d55e00")]
PAPER, INK = "#ffffff", "#1f2937"
SENTENCE = ["LoRA, adapters, prefix and prompt tuning:",
            "build them, check them, run them in your browser."]


def title():
    """The book's name, from its one home."""
    return yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["title"]


def mark():
    """The mark as SVG."""
    parts = "".join(f'  <rect x="{x}" y="{y}" width="{w}" height="{h}" rx="2" fill="{colour}"/>\n'
                    for x, y, w, h, colour in PARTS)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">\n{parts}</svg>\n'


def card():
    """The card, 1,200 by 630 pixels, as sites ask for."""
    image = Image.new("RGB", (1200, 630), PAPER)
    draw = ImageDraw.Draw(image)
    scale, left, top = 5, 70, 150
    for x, y, w, h, colour in PARTS:
        box = [left + x * scale, top + y * scale, left + (x + w) * scale, top + (y + h) * scale]
        draw.rounded_rectangle(box, 10, fill=colour)

    def write(text, y, size, face):
        font = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
        draw.text((460, y), text, fill=INK, font=ImageFont.truetype(font, size))

    words = title().split()
    half = (len(words) + 1) // 2
    write(" ".join(words[:half]), 190, 50, "DejaVuSans-Bold")
    write(" ".join(words[half:]), 260, 50, "DejaVuSans-Bold")
    for line, text in enumerate(SENTENCE):
        write(text, 375 + 40 * line, 26, "DejaVuSans")
    return image.quantize(64)


def main():
    write_whole(STATIC / "mark.svg", mark())
    with replacing(STATIC / "card.png") as [new]:
        card().save(new, "PNG", optimize=True)


if __name__ == "__main__":
    main()
