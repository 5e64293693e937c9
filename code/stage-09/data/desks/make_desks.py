"""Make customers' messages, each with the desk that must act, for the speaking model to learn from.

    python data/desks/make_desks.py    in code/stage-09

Rewrites desks.tsv beside this file; every word is this book's own. A message tells of two things at
two desks. One is in trouble, the other is fine, and the message goes to the desk in trouble. Every
message has a twin: the same words, with the other thing in trouble. So no list of key words can
tell the two apart, and whoever looks at words alone is right for one twin at most. Nor does "not"
give it away: "the parcel has not arrived" is trouble, "I was not charged twice" is none.

The groups:

    train      500   two things, six ways to join them
    test        60   the same things and ways, joined otherwise
    shapes      20   three of these things, one in trouble
    phrasings   20   things that training never names

The column `wrong` is the desk of the twin.
"""

import random
import sys
from itertools import combinations
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
WAYS = ["{A}, but {b}.", "{A}; however, {b}.", "Although {a}, {b}.", "{A}, and {b}.",
        "Hello, {a}, but {b}. Thanks!", "I write because {a} and {b}."]
WAYS_OF_THREE = ["{A}, {b}, but {c}.", "{A} and {b}; however, {c}."]
# Things in trouble if "not" stands at the gap: in training, and in new phrasings.
MISSING = {
    "account": (["I can{} log in", "my password is{} accepted", "my profile can{} be edited",
                 "the code for signing in was{} sent"],
                ["the reset link for my user name is{} valid"]),
    "billing": (["the invoice is{} correct", "my discount was{} deducted",
                 "my payment has{} been booked", "the sum on the bill is{} what we agreed"],
                ["the receipt is{} showing what I paid"]),
    "delivery": (["the parcel has{} arrived", "the courier has{} come",
                  "the shipment is{} complete", "the box was{} left at my door"],
                 ["the van has{} turned up"]),
    "repair": (["the machine is{} working", "the battery can{} be charged",
                "the lid can{} be closed", "the screen is{} lighting up"],
               ["the kettle is{} heating"]),
    "returns": (["what I sent back has{} been received", "the exchange was{} accepted",
                 "the label for sending it back is{} here", "the wrong size was{} taken back"],
                ["the shoes that I gave back were{} recorded"]),
    "sales": (["the offer that I asked for has{} come",
               "the model that I want to buy is{} in stock", "your price list is{} easy to read",
               "a quotation for fifty pieces was{} made"],
              ["a sample of the new chair was{} available"]),
}
# Things in trouble if "not" does not stand there.
PRESENT = {
    "account": (["my account is{} locked", "my name is{} misspelt in my profile",
                 "my log-in has{} expired", "my telephone number is{} wrong in my profile"],
                ["my user name was{} deleted"]),
    "billing": (["I was{} charged twice", "the bill is{} too high", "a fee was{} added by mistake",
                 "the invoice is{} made out to another firm"],
                ["the sum was{} taken from the wrong card"]),
    "delivery": (["the parcel is{} late", "the driver has{} gone to the wrong house",
                  "the box was{} lost on the way", "the box was{} wet when it came"],
                 ["the van was{} held up for days"]),
    "repair": (["the machine is{} broken", "the screen is{} cracked",
                "the motor is{} making a noise", "the battery is{} getting hot"],
               ["the kettle is{} leaking"]),
    "returns": (["my return was{} refused", "the form for sending things back is{} missing",
                 "the exchange was{} held up", "the label for sending it back is{} torn"],
                ["the shoes that I gave back were{} turned down"]),
    "sales": (["the offer has{} lapsed", "the price list is{} out of date",
               "the model that I want to buy is{} sold out", "the offer is{} dearer than promised"],
              ["the new chair is{} discontinued"]),
}


def things(place):
    """(desk, words, the gap's filling in trouble, and if all is fine) of two tables' things."""
    tables = ((MISSING, " not", ""), (PRESENT, "", " not"))
    return [[(desk, words, bad, fine) for desk, told in table.items() for words in told[place]]
            for table, bad, fine in tables]


def message(way, group, trouble):
    """The words of a message in which the thing at index `trouble` of the group is in trouble."""
    said = [words.format(bad if i == trouble else fine)
            for i, (_, words, bad, fine) in enumerate(group)]
    return way.format(A=said[0][0].upper() + said[0][1:], **dict(zip("abc", said)))


def twins(tables, ways, count, size, rng):
    """Pairs of messages of `size` things of one table each, with the desks in trouble."""
    pools = [[group for group in combinations(table, size)
              if len({desk for desk, *_ in group}) == size] for table in tables]
    drawn = []
    for i in range(count // 2):
        pool = pools[i % 2]
        group = rng.sample(pool.pop(rng.randrange(len(pool))), size)
        way = ways[i // 2 % len(ways)]
        one, two = sorted(rng.sample(range(size), 2))
        desks = group[one][0], group[two][0]
        drawn += [(message(way, group, one), *desks), (message(way, group, two), *desks[::-1])]
    return drawn


def rows():
    """(group, words, answer, wrong) of all messages."""
    rng, found = random.Random(0), []
    known, new = things(0), things(1)
    both = twins(known, WAYS, 560, 2, rng)
    parts = {"test": both[:60], "shapes": twins(known, WAYS_OF_THREE, 20, 3, rng),
             "phrasings": twins(new, WAYS, 20, 2, rng), "train": both[60:]}
    for group, part in parts.items():
        rng.shuffle(part)
        found += [(group, *row) for row in part]
    return found


def main():
    from experiments.tasks import write_rows
    write_rows("desks", ("group", "words", "answer", "wrong"), rows())


if __name__ == "__main__":
    main()
