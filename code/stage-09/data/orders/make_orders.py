"""Make orders as customers write them, with their four fields as JSON, for the speaking model.

    python data/orders/make_orders.py    in code/stage-09

Rewrites orders.tsv beside this file; every word is this book's own. The groups:

    train      500   eight sentences; numbers as digits or up to "twelve", dates as "14 March"
    test        60   the same sentences, items and cities that training does not name
    shapes      20   three sentences with a second number or city that does not count
    phrasings   20   the first sentences; numbers by the dozen, dates as "the 14th of Mar."

The column `wrong` is the right answer with one field of another order of the group, each field in
its turn.
"""

import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
SHAPES = ["Please send {n} {item} to {city} by {date}.",
          "We need {n} {item} in {city} on {date}.",
          "Could we have {n} {item} at our {city} office by {date}?",
          "By {date} at the latest: {n} {item} for our shop in {city}, please.",
          "Our branch in {city} would like {n} {item}, to arrive on {date}.",
          "{city} is short of {item}; {n} of them by {date} would be perfect.",
          "I'd like to order {n} {item}. Deliver them to {city} on {date}.",
          "For {city}: {n} {item}, needed on {date}."]
NEW_SHAPES = [
    "Last time you sent us {m} {item}. This time we need {n} of them in {city} by {date}.",
    "Please change our order for {city}: not {m} but {n} {item}, and by {date}.",
    "These {n} {item} were meant for {town}, but please take them to {city} on {date}."]
MONTHS = ("January February March April May June July August September October November "
          "December").split()
WORDS = "two three four five six seven eight nine ten eleven twelve".split()
DOZENS = {6: "half a dozen", 12: "a dozen", 24: "two dozen", 36: "three dozen", 100: "a hundred"}
ITEMS = ("desk lamps, office chairs, water bottles, coffee mugs, wall clocks, paper "
         "trays, door mats, garden gloves, light bulbs, shoe boxes, picture frames, key"
         " rings, hand towels, tool kits, phone cases, tea towels, bar stools, rain "
         "coats, bath mats, pencil cases, flower pots, work boots, first aid kits, "
         "notebooks, blankets, ladders, baskets, cushions, filing cabinets, lunch "
         "boxes, table cloths, bicycle pumps, umbrellas, candles, laptop stands, hard "
         "hats, wine glasses, curtains, doorbells, paint brushes").split(", ")
CITIES = ("Leeds, Oslo, Lyon, Porto, Bremen, Dublin, Vienna, Turin, Ghent, Malmo, "
          "Basel, Krakow, Prague, Seville, Utrecht, Aarhus, Boston, Denver, Toronto, "
          "Bergen, Naples, Athens, Sofia, Riga, Tampere, Nantes, Bonn, Izmir, Cardiff, "
          "Glasgow, Lisbon, Madrid, Chicago, Zurich, Helsinki, Ankara, Valencia, "
          "Antwerp, Warsaw, Graz").split(", ")
NAMED = 28  # items and cities of training; the others are the test's


def order(shape, group, rng):
    """The words of an order, and its fields."""
    part = slice(NAMED) if group == "train" else slice(NAMED, None)
    city, town = rng.sample(CITIES[part], 2)
    month, day = rng.randrange(1, 13), rng.randrange(1, 29)
    if group == "phrasings":
        n, said = rng.choice([*DOZENS.items()])
        end = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day // 10 != 1 else 0, "th")
        date = f"the {day}{end} of {MONTHS[month - 1][:3]}"
    else:
        n = rng.randrange(2, 13) if rng.random() < 0.5 else rng.randrange(13, 100)
        said = WORDS[n - 2] if n < 13 and rng.random() < 0.5 else str(n)
        date = rng.choice(["{} {}", "{1} {0}"]).format(day, MONTHS[month - 1])
    item = rng.choice(ITEMS[part])
    m = rng.choice([other for other in range(2, 100) if other != n])
    words = shape.format(n=said, item=item, city=city, date=date, m=m, town=town)
    return words, {"item": item, "quantity": n, "city": city, "date": f"{month:02}-{day:02}"}


def wrong(fields, others, name):
    """The fields, one of them from the first of the others in which it differs."""
    return fields | {name: next(o[name] for o in others if o[name] != fields[name])}


def rows():
    """(group, words, answer, wrong) of all orders."""
    rng, seen, found = random.Random(0), set(), []
    for group, shapes, count in (("test", SHAPES, 60), ("shapes", NEW_SHAPES, 20),
                                 ("phrasings", SHAPES, 20), ("train", SHAPES, 500)):
        orders = []
        while len(orders) < count:
            words, fields = order(shapes[len(orders) % len(shapes)], group, rng)
            if words not in seen:
                seen.add(words)
                orders.append((words, fields))
        rng.shuffle(orders)
        for i, (words, fields) in enumerate(orders):
            others = [other for _, other in orders[i + 1:] + orders[:i]]
            false = wrong(fields, others, [*fields][i % len(fields)])
            found.append((group, words, json.dumps(fields), json.dumps(false)))
    return found


def main():
    from experiments.tasks import write_rows
    write_rows("orders", ("group", "words", "answer", "wrong"), rows())


if __name__ == "__main__":
    main()
