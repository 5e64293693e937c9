"""What can go wrong in any exercise, and how a test says that it did."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

from exercises.harness.outside import PATIENCE
from exercises.harness.report import Diagnosis, short

TIME_LIMIT = 10.0  # seconds of the processor's work for one test, see outside.deadline

GENERAL = {d.mistake: d for d in (
    Diagnosis("raised", "an error inside your code",
              "The check called your code as the statement says, with valid input, and it stopped.",
              "statement"),
    Diagnosis("refuses-valid", "a refusal of what the statement allows",
              "Your code, or what it calls to check, said no to valid input. Compare the condition "
              "with the statement, or look what became of the value before.", "statement"),
    Diagnosis("forgets", "a forward that backward knows nothing of",
              "A forward has run, and what it should have left for backward is not there: it "
              "returns before it stores it, or a call in between has taken it away.", "9.6"),
    Diagnosis("unusable", "a result that can't be computed with",
              "The check went on with what your code gave, or left in an object that was passed "
              "in, and that failed.", "statement"),
    Diagnosis("slip", "a name that does not exist, written wrongly perhaps",
              "Python looked for a variable, an attribute or a key and found none of that name. "
              "The line is your own: compare the name with where it is made.", "statement"),
    Diagnosis("signature", "a name, a parameter or a default that differs from the statement",
              "Other code calls yours by the names of the statement, and so does this check.",
              "statement"),
    Diagnosis("too-long", "a loop that does not end, or one over single numbers",
              f"The test was stopped after {TIME_LIMIT:.0f} seconds of work, or after "
              f"{PATIENCE * TIME_LIMIT:.0f} in all. Its arrays are tiny: operations on whole ones "
              "need milliseconds.", "9.6"),
    Diagnosis("changes-input", "writing into what was passed in",
              "The caller still needs it. An operation such as += on an input, or on a view "
              "of it, changes it for everybody.", "9.6"),
    Diagnosis("global-random", "use of the global random state",
              "Functions such as np.random.rand share one hidden state with all other code, so a "
              "run cannot be repeated. Randomness comes from the generator that is passed in.",
              "statement"),
    Diagnosis("global-numpy", "a function that belongs to everybody, replaced",
              "NumPy, Python's own functions and the course's modules are shared with all other "
              "code, this check included: who replaces one of them changes everybody's results.",
              "statement"),
    Diagnosis("wrong-type", "a result of the wrong type", "Callers expect what the statement says.",
              "statement"),
    Diagnosis("wrong-shape", "a result of the wrong shape",
              "The shapes of the statement are what the rest of the model is built on. Where it "
              "writes three dots, any leading axes may stand.", "statement"),
    Diagnosis("wrong-dtype", "another dtype than the statement's",
              "A dtype is part of a result. float32 in must give float32 out: one float64 array in "
              "the middle makes every activation after it twice as large, a narrower one throws "
              "digits away.", "9.6"),
    Diagnosis("not-finite", "NaN or infinity in a result",
              "Somewhere zero divides, or an exponential overflows. The input was harmless.",
              "9.6"),
    Diagnosis("values", "a wrong value of a kind that this check does not know",
              "Take the smallest case that the statement allows, such as one row or width two, "
              "work it out on paper and compare line by line.", "statement"),
    Diagnosis("factor", "the right array times a constant",
              "All its entries are off by the same factor, so the formula is right but for that "
              "number. Look for where it comes in, or where it was forgotten.", "statement"),
    Diagnosis("terms", "a sum with a term missing, counted twice, or times a wrong number",
              "The right array is a sum: each way from the input to the output brings one term, "
              "once. The others are right already.", "statement"),
    Diagnosis("operand", "a product with a wrong factor in it",
              "Everything else in the formula is right. Compare this one factor with what forward "
              "has used in its place.", "statement"),
    Diagnosis("inner", "an inner value that is another one",
              "All the rest of the formula is right. Print this one value for the smallest input, "
              "and compare it with what the statement says it is.", "statement"),
    Diagnosis("another", "another array than the one asked for",
              "It is, or has in it, an array that belongs elsewhere.", "statement"),
    Diagnosis("turned", "the right numbers in the wrong places",
              "Where shapes agree by chance nothing complains. Follow the axes through a reshape, "
              "a transpose or a mean one by one.", "statement"),
    Diagnosis("partly", "an array that is right in some places only",
              "What holds for one row holds for all. Look for an index, a mask or a limit that "
              "treats some of them differently.", "statement"),
    Diagnosis("sizes", "an array that is wrong for some shapes only",
              "What holds at one size holds at all. Look for a line that asks a shape what an "
              "array is, for a reshape or a squeeze where two sizes are equal or one is 1, and for "
              "a number of rows that is written down.", "statement"),
    Diagnosis("range", "an array that is right for some numbers only",
              "The formula has no case for numbers that are large, small or zero. Look for a "
              "limit, a threshold, or a constant that was added.", "statement"),
    Diagnosis("accepts-nonsense", "no check of the arguments",
              "A size or rate that makes no sense must be refused at once. Otherwise it becomes a "
              "silent wrong answer much later.", "9.6"),
    Diagnosis("backward-first", "backward before forward is not refused",
              "backward needs what forward has remembered. Without it there is nothing to "
              "differentiate, and a RuntimeError says so.", "9.6"),
    Diagnosis("ignores-rng", "a start that does not come from rng",
              "Two objects made from the same seed must start alike, and two from different seeds "
              "or from none must not. Otherwise no run can be repeated.", "statement"),
    Diagnosis("starts-alike", "random numbers that are used more than once",
              "What starts alike gets gradients that are alike and stays together: twenty equal "
              "rows do the work of one for ever. And two arrays need a start each.", "statement"),
    Diagnosis("accumulates", "gradients that add up from one backward to the next",
              "By the contract each backward replaces the gradients. Here the second, identical "
              "backward changed them.", "9.6"),
    Diagnosis("dead-parameters", "parameters() with arrays that are not the ones in use",
              "An optimizer updates the arrays of parameters() in place. If they are copies, or "
              "are replaced later, it updates these, and the layer never learns.", "9.6"),
    Diagnosis("kept", "something kept from an earlier call",
              "Every forward works with its own input and with the arrays as they are by then, and "
              "backward with the last forward. What is made once and kept is right for one step; "
              "what is handed out once and written over was right until then.", "9.6"),
    Diagnosis("shared", "something on the class or the module that belongs to one object",
              "A model holds many objects of a class, and all run forward before any runs "
              "backward. What one call remembers belongs on self.", "9.6"),
    Diagnosis("handed-out", "a result that is somebody else's array",
              "Whoever writes into the result writes into the frozen weight, too, or the other way "
              "round. A new array is a copy, also while the update is zero.", "9.6"),
    Diagnosis("start-size", "random numbers of the wrong size or kind at the start",
              "The statement says how large they may be, and from which distribution they come. "
              "Larger ones disturb what was trained before and make the first steps jump.",
              "statement"),
    Diagnosis("digits", "digits that were lost on the way",
              "The formula is right and the numbers have fewer digits than their dtype holds. "
              "Tables stay as exact as they are given, and nothing becomes narrower in between.",
              "statement"),
    Diagnosis("both-zero", "A and B both start at zero",
              "Each gradient contains the other matrix as a factor. With both at zero, both "
              "gradients are zero for ever and nothing is learned.", "9.2"),
    Diagnosis("start-not-frozen", "a start that is not the pretrained model",
              "Training must begin exactly at the pretrained model. If an update is not zero at "
              "the start, training first has to repair the damage.", "9.2"),
    Diagnosis("transposed", "A or B stored the other way round",
              "Weights are (out, in), here as in PyTorch: A is (rank, in) and B is (out, rank). "
              "Files, counts and start values all rely on it.", "9.2"),
    Diagnosis("merge-changes", "a merge that changes something",
              "merge only reads. One may look at the merged weights in the middle of training, and "
              "go on: what forward has left for backward stays.", "statement"),
    Diagnosis("nearly", "a value that is nearly right",
              "That is too little for a slip in the formula, and too regular for rounding. Look "
              "for a small number that was added lest something divides by zero, and for a limit.",
              "statement"),
    Diagnosis("late-gradients", "gradients that are made when they are asked for",
              "An optimizer asks for them one by one, while it moves the arrays. backward computes "
              "all of them, by the arrays as they are then, and keeps them.", "9.6"),
    Diagnosis("writes-parameters", "a forward or backward that writes into parameters()",
              "They read these arrays and leave the gradients beside them. Only the optimizer "
              "takes a step, once and at the rate that it was given.", "9.6"),
)}


class Found(Exception):
    """A test has found a mistake."""

    def __init__(self, diagnosis: Diagnosis, seen: str = ""):
        self.diagnosis = replace(diagnosis, seen=short(seen or diagnosis.seen, 900))
        super().__init__(diagnosis.mistake)


class Measured(Found):
    """A test has found a wrong array. What it is instead is measured when somebody asks."""

    def __init__(self, measure: Callable[[], Diagnosis]):
        Exception.__init__(self, "measured")
        self.measure = measure

    @cached_property
    def diagnosis(self) -> Diagnosis:
        diagnosis = self.measure()
        return replace(diagnosis, seen=short(diagnosis.seen, 900))


class NotYet(Exception):
    """The work that a test needs isn't there yet."""
