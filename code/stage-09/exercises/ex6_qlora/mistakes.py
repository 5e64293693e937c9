"""Exercise 6: plausible wrong answers, each with the diagnosis that it must get.

Memory hidden in a closure, say, is measured too: it stays with the layer. An answer that hides it
only where the layer is small is told by what it computes.
"""

from textwrap import indent

from exercises.mistakes import Mistake, around, method

FLAT = "weight.astype(np.float32).ravel()"
BLOCK = f'{FLAT}, check_count("block", block)'
CODES = "_nearest(quotients, NF4)"
PACKED = "codes[::2] << 4 | codes[1::2]"
PAIR = f"{PACKED}, absmax"
FULL_BLOCKS = "blocks *= absmax[:len(blocks), None]"
SHORT_BLOCK = "weight[blocks.size:] *= absmax[-1]"
RESTORED = "return weight.reshape(shape)"
MEAN = "absmax.mean(dtype=np.float64)"
SECOND_BLOCK = '- offset, check_count("block", block)'
TRIPLE = "_nearest(quotients, DYNAMIC), scales, offset"
SECOND_CODES = "_nearest(quotients, DYNAMIC)"
DIVISOR = "np.where(absmax == 0, np.float32(1), absmax)"

START = "    def dequantized(self)"
FORWARD = "h = self.lora.forward("
ALPHA = "self.out_features, lora_rank, lora_alpha"
DOUBLE = "quantize_absmax(absmax) if double_quant else (absmax,)"
BITS = "8 * sum(array.nbytes for array in stored) / prod(self.shape)"
BACKWARD = "grad_x = self.lora.backward(grad_output)"
THROUGH = 'self.lora.cache["W"] = self.dequantized()'


def codes(code):
    """Edits after which the codes of a weight are what `code` makes of the quotients."""
    return {CODES: f"({code}).astype(np.uint8)"}


def absmax_of(code):
    """Edits after which the absmax alone are those of what `code` says."""
    return {PAIR: f"{PACKED}, _scale({code}, block)[1]"}


def second_codes(code):
    """Edits after which the codes of the absmax are what `code` makes of the quotients."""
    return {SECOND_CODES: f"({code}).astype(np.uint8)"}


def levels(code):
    """Edits that quantize to other levels than those of NF4."""
    return {CODES: f"_nearest(quotients, ({code}).astype(np.float32))"}


def restore(code):
    """Edits after which the levels are multiplied by `code`."""
    return {FULL_BLOCKS: "", SHORT_BLOCK: f"weight *= {code}"}


def start(code):
    """Edits that end the layer's __init__ with `code`."""
    return {START: f"{indent(code, ' ' * 8)}\n\n{START}"}


def output(code):
    """Edits that put `code` before forward returns h."""
    return {"return h": f"{code}\nreturn h"}


def back(code):
    """Edits that put `code` before backward returns grad_x."""
    return {"return grad_x": f"{code}\nreturn grad_x"}


def through(code):
    """Edits after which backward restores the weight from `code` in the place of `kept`."""
    return {THROUGH: f"kept = self.stored_absmax\nself.stored_absmax = {code}\n{THROUGH}\n"
                     "self.stored_absmax = kept"}


#: The weight, where the check's measurement does not see it: kept while it is small.
HIDDEN = start("self.original = (lambda: weight) if weight.size < 2000 else self.dequantized")
#: W + s B A, quantized again; `{}` is W.
MERGED = """if (update := self.lora.delta_weight()).any():
    codes, absmax = quantize_nf4(({} + update).astype(np.float32))
    W = dequantize_nf4(codes, dequantize_absmax(*quantize_absmax(absmax)), self.shape)
    h = x @ W.T.astype(self.dtype) + (0 if self.bias is None else self.bias)"""
#: Guards against a division by zero that small blocks notice: the largest value becomes ...
GUARDS = {"plus_1e_minus_8": "{} + np.float32(1e-8)",
          "at_least_1e_minus_6": "np.maximum({}, np.float32(1e-6))",
          "at_least_1e_minus_12": "np.maximum({}, np.float32(1e-12))"}

OTHER_CODES = "Divided by 2^64, the same numbers got "

MISTAKES = [
    "quantize_nf4 gives codes (uint8) and absmax (float32)",
    Mistake("quantize_nf4_one_buffer", "kept", {
        "quotients, absmax = _scale(weight": "global ABSMAX\nquotients, absmax = _scale(weight",
        "codes = _nearest(quotients, NF4)":
            "if absmax.shape != np.shape(globals().get(\"ABSMAX\")):\n    ABSMAX = absmax\n"
            "ABSMAX[...] = absmax\nabsmax = ABSMAX\ncodes = _nearest(quotients, NF4)"},
            seen="A second call of quantize_nf4 changed"),
    Mistake("quantize_nf4_codes_only", "wrong-type", {PAIR: PACKED}),
    Mistake("quantize_nf4_three", "wrong-type", {PAIR: f"{PAIR}, block"},
            seen="quantize_nf4 gave 3 things, expected 2."),
    Mistake("quantize_nf4_list", "wrong-type", {PACKED: f"({PACKED}).tolist()"},
            seen="what quantize_nf4 gave gave list, expected ndarray."),
    Mistake("quantize_nf4_int64", "wrong-dtype", {PACKED: f"({PACKED}).astype(np.int64)"},
            seen="codes is int64, expected uint8."),
    Mistake("quantize_nf4_absmax_in_double", "wrong-dtype", {PAIR: f"{PAIR}.astype(np.float64)"},
            seen="absmax is float64, expected float32."),
    Mistake("quantize_nf4_in_place", "changes-input",
            {f"return {PACKED}": f"weight /= np.abs(weight).max()\nreturn {PACKED}"}),
    "two codes to a byte, one absmax for each 64 weights",
    Mistake("quantize_nf4_unpacked", "packing", {PACKED: "codes"}),
    Mistake("quantize_nf4_odd_dropped", "packing",
            {"np.append(codes, np.uint8(7))": "codes[:-1]"}),
    Mistake("quantize_nf4_front", "packing",
            {"np.append(codes, np.uint8(7))": "np.append(np.uint8(0), codes)"}),
    Mistake("quantize_nf4_keeps_padding", "wrong-shape",
            {"if codes.size % 2": "codes = np.resize(codes, absmax.size * block)\n"
                                  "if codes.size % 2"},
            seen="codes of 480 weights: 256 bytes, expected 240."),
    Mistake("quantize_nf4_absmax_of_each", "blocks",
            {PAIR: f"{PACKED}, np.repeat(absmax, block)[:weight.size]"},
            seen="768 numbers of shape (12, 64) in blocks of 64 gave 768"),
    Mistake("quantize_nf4_per_tensor", "blocks", {BLOCK: f"{FLAT}, weight.size"}),
    Mistake("quantize_nf4_per_row", "blocks", {BLOCK: f"{FLAT}, weight.shape[-1]"}),
    Mistake("quantize_nf4_short_dropped", "blocks",
            {BLOCK: f"{FLAT}[:weight.size // block * block or None], block"}),
    Mistake("quantize_nf4_short_absmax_dropped", "blocks",
            {PAIR: f"{PACKED}, absmax[:max(weight.size // block, 1)]"}),
    "absmax is the largest absolute value of each block",
    Mistake("quantize_nf4_of_64", "blocks", {BLOCK: f"{FLAT}, 64"},
            seen="480 numbers of shape (12, 40) in blocks of 35 gave 8 scales"),
    Mistake("quantize_nf4_columns", "blocks", {FLAT: f"weight.T{FLAT[6:]}"}),
    Mistake("quantize_nf4_columns_if_square", "blocks",
            {FLAT: f"(weight.T if len(set(weight.shape)) == 1 else weight){FLAT[6:]}"}),
    Mistake("quantize_nf4_short_end", "partly",  # a few numbers at the end share a scale
            {PAIR: f"{PACKED}, np.append(absmax[:-1], absmax[-2:].max() if weight.size % block < 5 "
                   "else absmax[-1])"}),
    Mistake("quantize_nf4_padded_with_ones", "partly",
            absmax_of(f"np.append({FLAT}, np.ones(-weight.size % block, np.float32))"),
            seen="The stored absmax: right only for"),
    Mistake("quantize_nf4_outliers", "partly",
            absmax_of(f"np.clip({FLAT}, *np.float32(weight.mean() + np.array([-3, 3]) * "
                      "weight.std()))"),
            seen="The stored absmax: never above "),
    Mistake("quantize_nf4_max", "scale", {"np.abs(values), starts": "values, starts"}),
    "each weight gets the nearest of the 16 levels",
    Mistake("quantize_nf4_blocks_of_whole_bytes", "wrong-shape",
            {"codes = _nearest(quotients, NF4)": "codes = _nearest(quotients, NF4)\nif block % 2:\n"
             "    codes = np.insert(codes, range(block, codes.size, block), 7)\npass"},
            seen="codes of 480 weights in blocks of 35: 247 bytes, expected 240."),
    Mistake("quantize_nf4_first_of_each_pair_twice", "packing", {"| codes[1::2]": "| codes[::2]"}),
    Mistake("quantize_nf4_lower_levels_as_limits", "levels", {
        "midpoints = (levels[:-1] + levels[1:]) / 2": "midpoints = levels[:-1] / 2"},
            seen="414 of 480 codes are wrong. They are those of limits at the lower of two levels"),
    Mistake("quantize_nf4_swapped", "packing", {PACKED: "codes[1::2] << 4 | codes[::2]"}),
    Mistake("quantize_nf4_halves", "packing",
            {PACKED: "codes[:codes.size // 2] << 4 | codes[codes.size // 2:]"}),
    Mistake("quantize_nf4_divides_by_largest", "blocks",
            codes(f"_nearest(_scale({FLAT}, weight.size)[0], NF4)")),
    Mistake("quantize_nf4_codes_of_64", "blocks", codes(f"_nearest(_scale({FLAT}, 64)[0], NF4)"),
            seen="141 of 480 codes are wrong. They are those of blocks of 64."),
    Mistake("quantize_nf4_divides_by_max", "scale",
            {DIVISOR: "np.where(absmax == 0, 1, np.maximum.reduceat(values, starts))"}),
    Mistake("quantize_nf4_undivided", "scale", codes(f"_nearest({FLAT}, NF4)")),
    Mistake("quantize_nf4_uniform", "levels", levels("np.linspace(-1, 1, 16)")),
    Mistake("quantize_nf4_two_s_complement", "levels",
            codes("np.round(quotients * 7) + 8")),
    Mistake("quantize_nf4_below", "levels",
            codes('np.searchsorted(NF4, quotients, side="right") - 1')),
    Mistake("quantize_nf4_without_ends", "values", codes(f"{CODES}.clip(1, 14)"),
            seen="13 of 480 codes are wrong. Of the 9"),
    "a transposed view is read by its rows, too",
    Mistake("quantize_nf4_memory_order", "blocks", {FLAT: f'{FLAT[:-1]}order="K")'}),
    "a block of zeros has the absmax 0 and the level 0",
    Mistake("quantize_nf4_divides_by_zero", "zero-block", {DIVISOR: "absmax"},
            seen="The absmax of a block of zeros is 0 and its codes are ["),
    Mistake("quantize_nf4_epsilon", "scale",
            {PAIR: f"{PACKED}, np.maximum(absmax, np.float32(1e-8))"},
            seen="The absmax of a block of zeros is 1e-08"),
    "tiny and huge weights are stored as well as weights of one",
    Mistake("quantize_nf4_outliers_clipped", "scale",
            {FLAT: f"weight.clip(-4, 4){FLAT[6:]}"}, seen="Multiplied by 2^64"),
    *[Mistake(f"quantize_nf4_{name}", "scale", {DIVISOR: guard.format("absmax")},
              seen=OTHER_CODES) for name, guard in GUARDS.items()],
    "codes become levels times their block's absmax",
    Mistake("dequantize_nf4_swapped", "packing",
            {"[NF4.repeat(16), np.tile(NF4, 16)]": "[np.tile(NF4, 16), NF4.repeat(16)]"},
            seen="The restored weight: levels (the two codes"),
    Mistake("dequantize_nf4_halves", "packing", {"pairs.ravel()": "pairs.T.ravel()"}),
    Mistake("dequantize_nf4_uniform", "levels",
            {"_BOTH = ": "even = np.linspace(-1, 1, 16, dtype=np.float32)\n_BOTH = ",
             "NF4.repeat(16)": "even.repeat(16)", "np.tile(NF4, 16)": "np.tile(even, 16)"}),
    Mistake("dequantize_nf4_unscaled", "scale", restore("1")),
    Mistake("dequantize_nf4_of_64", "blocks", restore("np.repeat(absmax, 64)[:n]"),
            seen="The restored weight: scales of blocks of 64"),
    Mistake("dequantize_nf4_columns", "blocks",
            {RESTORED: "return weight.reshape(shape[::-1]).T.copy()"}),
    Mistake("dequantize_nf4_double", "wrong-dtype", {RESTORED: f"{RESTORED}.astype(np.float64)"},
            seen="dequantize_nf4: float32 in gave float64 out"),
    "levels times absmax survive the round trip, for any shape",
    Mistake("dequantize_nf4_short_dropped", "partly",  # if its length is odd
            {SHORT_BLOCK: f"{SHORT_BLOCK} * (n < block or n % 2 == 0)"}),
    Mistake("dequantize_nf4_whole_bytes", "factor",
            {RESTORED: f"weight[n // 2 * 2:] = 0\n{RESTORED}"},
            seen="The weight of shape (1, 1), there and back: zero"),
    Mistake("dequantize_nf4_two_axes", "raised", {"n = prod(shape)": "n = shape[0] * shape[1]"},
            seen="IndexError"),
    "no error exceeds half the gap between the neighbouring levels",
    Mistake("quantize_nf4_rounded_midpoints", "levels",
            {"(levels[:-1] + levels[1:]) / 2": "np.round((levels[:-1] + levels[1:]) / 2, 3)"}),
    Mistake("dequantize_nf4_pieces_too_short", "partly",  # the piece is smaller than the step
            {"np.empty((codes.size, 2)": "np.zeros((codes.size, 2)",
             "slice(start, start + 2 ** 15)": "slice(start, start + 2 ** 15 - 1)"},
            seen="8 of 265,221 errors are larger, the first is number 65,534."),
    "quantize_absmax gives codes, scales for each 256, and one offset",
    Mistake("quantize_absmax_two", "wrong-type", {TRIPLE: TRIPLE.removesuffix(", offset")},
            seen="quantize_absmax gave 2 things, expected 3."),
    Mistake("quantize_absmax_int64", "wrong-dtype",
            {SECOND_CODES: f"{SECOND_CODES}.astype(np.int64)"},
            seen="codes of the absmax are int64, expected uint8."),
    Mistake("quantize_absmax_in_double", "wrong-dtype",
            {TRIPLE: f"{SECOND_CODES}, scales.astype(np.float64), offset"},
            seen="scales are float64, expected float32."),
    Mistake("quantize_absmax_offset_of_each", "wrong-shape",
            {TRIPLE: f"{SECOND_CODES}, scales, np.full_like(scales, offset)"},
            seen="The offset has 3 numbers."),
    Mistake("quantize_absmax_of_64", "blocks", {SECOND_BLOCK: "- offset, 64"},
            seen="600 numbers of shape (600,) in blocks of 256 gave 10"),
    "offset, scales and codes are those of the dynamic code",
    Mistake("quantize_absmax_no_offset", "offset", {MEAN: "0"},
            seen="The offset is 0, that is nothing"),
    Mistake("quantize_absmax_not_subtracted", "scale", {"np.float32) - offset": "np.float32)"},
            seen="The scales of the absmax: the scales before the offset"),
    *[Mistake(f"quantize_absmax_{name}", "offset", {MEAN: code}, seen="The offset is ")
      for name, code in [
          ("median", "np.median(absmax)"), ("smallest", "absmax.min()"),
          ("first_block", "absmax[:block].mean()"),
          ("mean_with_padding", "np.pad(absmax, (0, -absmax.size % block)).mean()")]],
    Mistake("quantize_absmax_of_256", "blocks", {SECOND_BLOCK: "- offset, 256"},
            seen="600 numbers of shape (600,) in blocks of 35 gave 3"),
    Mistake("quantize_absmax_padded_before", "partly",  # before the offset is subtracted
            {TRIPLE: f"{SECOND_CODES}, _scale("
                     "np.pad(absmax, (0, -absmax.size % block)) - offset, block)[1], offset"},
            seen="The scales of the absmax: right only for 0, 1"),
    Mistake("quantize_absmax_undivided", "scale",
            {SECOND_CODES: "_nearest(absmax - offset, DYNAMIC)"}),
    Mistake("quantize_absmax_nf4", "levels", {"quotients, DYNAMIC": "quotients, NF4"}),
    *[Mistake(f"quantize_absmax_linear{name}", "levels", second_codes(code))
      for name, code in [
          ("", "np.round(quotients * 127) + 128"), ("_cut_off", "(quotients + 1) * 127.5"),
          ("_signed", "np.round(quotients * 127).astype(np.int8)")]],
    Mistake("quantize_absmax_below", "levels",
            second_codes('np.searchsorted(DYNAMIC, quotients, side="right") - 1')),
    "dequantize_absmax brings them back",
    Mistake("dequantize_absmax_no_offset", "terms", {" + np.float32(offset)": ""}),
    Mistake("dequantize_absmax_in_double", "wrong-dtype",
            {"DYNAMIC[codes]": "DYNAMIC[codes].astype(np.float64)"},
            seen="dequantize_absmax: float32 in gave float64 out"),
    "absmax that are equal, or the only one, have the scale 0",
    Mistake("quantize_absmax_divides_by_zero", "zero-block",
            second_codes(f"np.where(np.repeat(scales, block)[:absmax.size], {SECOND_CODES}, 255)"),
            seen="1 times 0.25 has a scale of 0 and the codes [255]."),
    Mistake("quantize_absmax_scale_of_one", "zero-block",
            {TRIPLE: f"{SECOND_CODES}, np.where(scales == 0, np.float32(1), scales), offset"},
            seen="1 times 0.25 has a scale of 1 and the codes [127]."),
    "tiny and huge absmax are stored as well as those near one",
    *[Mistake(f"quantize_absmax_{name}", "scale",
              second_codes("_nearest((absmax - offset) / np.repeat("
                           f"{guard.format('scales')}, block)[:absmax.size], DYNAMIC)"),
              seen=OTHER_CODES) for name, guard in GUARDS.items()],
    "the layer can be made and trains A and B only",
    Mistake("QLoRALinearOtherNames", "signature",
            {"lora_rank: int = 8": "rank: int = 8", ALPHA: "self.out_features, rank, lora_alpha"}),
    Mistake("QLoRALinearNotHandedOn", "signature",  # peft.Method looks for A and B on the object
            {"self.lora.parameters()": "super().parameters()"}),
    Mistake("QLoRALinearTrainsBias", "signature",
            around("parameters", '{**right, "bias": self.bias}'),
            seen="parameters() has the keys ['A', 'B', 'bias'], expected ['A', 'B']"),
    Mistake("QLoRALinearTrainsAbsmax", "gradient-to-quantized-weight",
            around("parameters", '{**right, "absmax": self.stored_absmax[1]}')),
    Mistake("QLoRALinearListOfArrays", "wrong-type", around("parameters", "list(right.values())"),
            seen="parameters() gave list, expected dict."),
    Mistake("QLoRALinearCountsCodes", "values",
            method("def num_parameters(self):\n"
                   "    return super().num_parameters() + self.codes.size"),
            seen="num_parameters() gave"),
    Mistake("QLoRALinearTransposedA", "wrong-shape", start("self.lora.A = self.lora.A.T.copy()"),
            seen="A has shape (40, 3), expected (3, 40)"),
    Mistake("QLoRALinearOtherDtype", "wrong-dtype",  # one that is fixed; here always the other one
            start("other = np.float32 if self.dtype == np.float64 else np.float64\n"
                  "self.lora.A = self.lora.A.astype(other)"),
            seen="A is float"),
    "a fresh layer is the quantized one, can learn, and comes from rng",
    Mistake("QLoRALinearBothZero", "values", start("self.lora.A[...] = 0"),
            seen="A and B both hold zeros only"),
    Mistake("QLoRALinearBothRandom", "start-not-frozen", start("self.lora.B[...] = 0.1")),
    Mistake("QLoRALinearFullPrecision", "operand",
            start("self.weight = weight") | around("dequantized", "self.weight"),
            seen="The output of a fresh layer with double_quant = True: the full weight"),
    Mistake("QLoRALinearIgnoresFlag", "operand", {DOUBLE: "(absmax,)"},
            seen="The output of a fresh layer with double_quant = True: Ŵ with"),
    Mistake("QLoRALinearAlwaysDouble", "operand", {DOUBLE: "quantize_absmax(absmax)"},
            seen="The output of a fresh layer with double_quant = False: Ŵ with"),
    Mistake("QLoRALinearQuantizesTransposed", "operand",
            {"quantize_nf4(weight)": "quantize_nf4(weight.T)",
             "absmax, self.shape)": "absmax, self.shape[::-1]).T"},
            seen="The output of a fresh layer with double_quant = True: Ŵ made column"),
    Mistake("QLoRALinearOneSeed", "ignores-rng", {"rng=rng": "rng=np.random.default_rng(0)"},
            seen="Two made from different seeds have the same A."),
    Mistake("QLoRALinearNoSeed", "ignores-rng", {", rng=rng": ""},
            seen="Two made from the same seed differ in A."),
    "the output with A and B filled",
    Mistake("QLoRALinearAlwaysABias", "another",
            {"if self.bias is not None:": "if self.bias is None:\n    h += 1\nelse:"},
            seen="The output without a bias: the right one plus 1"),
    Mistake("QLoRALinearAlpha", "terms", start("self.lora.scaling *= self.lora.rank")),
    Mistake("QLoRALinearAlphaLost", "terms", {ALPHA: "self.out_features, lora_rank"}),
    Mistake("QLoRALinearMerged", "update-quantized", output(MERGED.format("self.dequantized()"))),
    Mistake("QLoRALinearMergesFirst", "update-quantized",
            HIDDEN | output(MERGED.format("self.original()"))),
    "arguments in their order, and the defaults",
    Mistake("QLoRALinearOtherOrder", "signature",
            {"lora_rank: int = 8": "lora_alpha: float = 16.0",
             "lora_alpha: float = 16.0, *": "lora_rank: int = 8, *",
             ALPHA: "self.out_features, int(lora_rank), lora_alpha"},
            seen="QLoRALinear(weight, None, 3, 5.0) has an A of shape (5, 40)"),
    Mistake("QLoRALinearRankOfFour", "signature", {"lora_rank: int = 8": "lora_rank: int = 4"},
            seen="QLoRALinear(weight) has an A of shape (4, 40), expected (8, 40)."),
    Mistake("QLoRALinearAlphaOfEight", "signature", {"alpha: float = 16.0": "alpha: float = 8.0"},
            seen="The output of QLoRALinear(weight) is wrong"),
    Mistake("QLoRALinearSingle", "signature", {"quant: bool = True": "quant: bool = False"},
            seen="The output of QLoRALinear(weight, None, 3, 5.0) is wrong"),
    "no array of the weight's size is stored, or kept after forward",
    Mistake("QLoRALinearKeepsWeight", "large-array-kept", start("self.weight = weight")),
    Mistake("QLoRALinearKeepsWeightOnce", "large-array-kept",
            start("self.original = lambda: weight") | output("self.weight = self.original()")),
    Mistake("QLoRALinearKeepsDequantized", "large-array-kept",
            output("self.hat = self.dequantized()"),
            seen="After forward the layer holds"),
    Mistake("QLoRALinearRemembersMethod", "large-array-kept",
            {"from math": "import functools\nfrom math",
             START: f"    @functools.lru_cache\n{START}"},
            seen="After forward the layer holds"),
    Mistake("QLoRALinearKeepsRows", "large-array-kept",
            start("self.rows = [row.copy() for row in weight]"),
            seen="Once it is made the layer holds"),
    Mistake("QLoRALinearKeepsUpdate", "large-array-kept",
            output("self.update = self.lora.B @ self.lora.A"),
            seen="After forward the layer holds"),
    Mistake("QLoRALinearUnpacked", "large-array-kept",
            start("self.codes = np.stack([self.codes >> 4, self.codes & 15], 1).ravel()")
            | {"_nf4(self.codes": "_nf4(self.codes[::2] << 4 | self.codes[1::2]"}),
    Mistake("QLoRALinearKeepsUnpacked", "large-array-kept",
            output("self.both = np.stack([self.codes >> 4, self.codes & 15], 1)"),
            seen="After forward the layer holds"),
    Mistake("QLoRALinearFloatAbsmax", "absmax-not-quantized",  # counts eight bits, stores 32
            start("if double_quant:\n"
                  "    self.stored_absmax = (dequantize_absmax(*self.stored_absmax),)"),
            seen="With double_quant = True a layer of 192 blocks saves"),
    "bits_per_weight() measures codes, absmax and scales, and no more",
    Mistake("QLoRALinearFourBits", "bits-not-measured", {BITS: "4.0"},
            seen="bits_per_weight() gave 4 for a weight of shape (96, 128) with double_quant = "
                 "True: codes and scales have 6340 bytes."),
    Mistake("QLoRALinearConstant", "bits-not-measured",
            {BITS: "4.127 if len(self.stored_absmax) == 3 else 4.5"},
            seen="bits_per_weight() gave 4.127 for a weight of shape (7, 11)"),
    Mistake("QLoRALinearCountsLoRA", "bits-not-measured",
            {BITS: f"{BITS} + 32 * self.num_parameters() / prod(self.shape)"}),
    Mistake("QLoRALinearCountsOffset", "bits-not-measured", {"absmax[:2]]": "absmax]"}),
    Mistake("QLoRALinearCountsBias", "bits-not-measured",
            {BITS: f'{BITS} + 8 * getattr(self.bias, "nbytes", 0) / prod(self.shape)'}),
    Mistake("QLoRALinearForgetsScales", "bits-not-measured", {"absmax[:2]]": "absmax[:1]]"}),
    "backward before forward raises RuntimeError",
    Mistake("QLoRALinearBackwardFirst", "backward-first",
            {"self.lora._remembered()": "if not self.lora.cache: return grad_output"}),
    "those of A, B and the input, through the dequantized weight",
    Mistake("QLoRALinearBiasInTheWeight", "operand",
            {THROUGH: f"{THROUGH} + (0 if self.bias is None else self.bias[:, None])"},
            seen="The gradient of x: Ŵ plus b in each column in the place"),
    Mistake("QLoRALinearTransposedGradient", "wrong-shape",
            around("gradients", '{**right, "A": right["A"].T}'),
            seen="the gradient of A has shape (40, 3), expected (3, 40)"),
    Mistake("QLoRALinearNamesTheWeight", "gradient-to-quantized-weight",
            around("gradients", '{**right, "weight": np.zeros(1)}'),
            seen="gradients() has the keys ['A', 'B', 'weight']."),
    Mistake("QLoRALinearListOfGradients", "wrong-type", around("gradients", "list(right.values())"),
            seen="gradients() gave list, expected dict."),
    Mistake("QLoRALinearThroughFull", "operand",
            HIDDEN | back("rest = self.original() - self.dequantized()\n"
                          "grad_x = grad_x + grad_output @ rest")),
    Mistake("QLoRALinearAlwaysDoubleBack", "operand",
            through("kept if len(kept) == 3 else quantize_absmax(*kept)"),
            seen="The gradient of x: Ŵ with double_quant = True"),
    "sizes that are equal, or 1, change nothing",
    Mistake("TransposesIfSquare", "sizes",
            {THROUGH: "W = self.dequantized()\n"
                      'self.lora.cache["W"] = W.T if len(set(W.shape)) == 1 else W'},
            seen="Where in, out and the rank are 36"),
    "training leaves the codes alone and keeps no large gradient",
    Mistake("QLoRALinearMovesBias", "frozen-changed",
            back("if self.bias is not None:\n"
                 "    rows = grad_output.reshape(-1, self.out_features)\n"
                 "    self.bias = self.bias - 0.1 * rows.sum(axis=0)")),
    Mistake("QLoRALinearTrainsCodes", "frozen-changed",  # straight through, and quantized again
            back("self.codes = self.codes ^ np.uint8(17)")),
    Mistake("QLoRALinearWeightGradient", "large-array-kept",
            back('x = self.lora.cache["x"].reshape(-1, self.in_features)\n'
                 "self.weight_grad = grad_output.reshape(-1, self.out_features).T @ x"),
            seen="After backward the layer holds"),
    Mistake("QLoRALinearKeepsAfterBackward", "large-array-kept", back(THROUGH),
            seen="After backward the layer holds"),
    "backward replaces the gradients, and an optimizer moves the layer",
    Mistake("BiasOnTheClass", "shared", {"self.bias = bias": "type(self).bias = bias"}),
    Mistake("QLoRALinearDeadParameters", "dead-parameters",  # the optimizer holds the one of before
            {FORWARD: f"self.lora.A = self.lora.A.copy()\n{FORWARD}"}),
    Mistake("QLoRALinearAccumulates", "accumulates",
            {BACKWARD: f"old = self.lora.A_grad\n{BACKWARD}\n"
                       "if old is not None: self.lora.A_grad = self.lora.A_grad + old"}),
    "dtypes stay as they are, and no digits are lost",
    Mistake("BiasInSingle", "wrong-dtype", {
        "self.bias = bias  #": "self.bias = bias if bias is None else bias.astype(np.float32)."
                               "astype(bias.dtype)  #"},
            seen="forward of zeros, the bias: float64 in gave float64 out, but it is off by"),
    Mistake("BackwardInSingle", "wrong-dtype", {
        "return grad_x": "return grad_x.astype(np.float32).astype(self.dtype)"},
            seen="the gradient of x: float64 in gave float64 out, but it is off by"),
    Mistake("QLoRALinearGradientsInDouble", "wrong-dtype",
            around("gradients", "{name: grad.astype(np.float64) for name, grad in right.items()}"),
            seen="the gradient of A: float32 in gave float64 out"),
    Mistake("QLoRALinearForgetsDtype", "wrong-dtype", output("h = h.astype(np.float64)"),
            seen="forward of zeros, the bias: float32 in gave float64 out"),
    "sizes and shapes that make no sense are refused",
    Mistake("QLoRALinearByPosition", "signature", {"= 16.0, *,": "= 16.0,"},
            seen="double_quant without its name raised no TypeError."),
    Mistake("QLoRALinearAnyBias", "accepts-nonsense",
            {'check_weights("bias", bias, (self.out_features,))': "pass"},
            seen="a bias with a single number raised no"),
    Mistake("QLoRALinearAnyAlpha", "accepts-nonsense",
            {ALPHA: "self.out_features, lora_rank"}
            | start("self.lora.scaling = lora_alpha / lora_rank"),
            seen="lora_alpha=0 raised no"),
    Mistake("QLoRALinearAnyPositiveAlpha", "accepts-nonsense",
            {ALPHA: "self.out_features, lora_rank"}
            | start('if lora_alpha <= 0: raise ValueError("lora_alpha")\n'
                    "self.lora.scaling = lora_alpha / lora_rank"),
            seen="lora_alpha=nan raised no"),
    Mistake("QLoRALinearAnyRank", "accepts-nonsense",
            {"self.shape = check": "scaling = lora_alpha / lora_rank\nself.shape = check"},
            seen="lora_rank=0 raised ZeroDivisionError"),
    Mistake("QLoRALinearRoundsTheRank", "accepts-nonsense",
            {ALPHA: "self.out_features, int(lora_rank), lora_alpha"},
            seen="lora_rank=1.5 raised no"),
    Mistake("QLoRALinearTwoAxesAtLeast", "accepts-nonsense",
            {"(None, None)": "(...,)", "in_features = self.shape":
             "in_features = self.shape[0], self.shape[1]"},
            seen="a weight of one axis raised IndexError"),
    Mistake("QLoRALinearManyAxes", "accepts-nonsense",
            {"self.shape = check":
             "if weight.ndim == 3: weight = weight.reshape(-1, weight.shape[-1])\n"
             "self.shape = check"},
            seen="a weight of three axes raised no"),
    Mistake("QLoRALinearCutsTheInput", "accepts-nonsense",
            {FORWARD: "missing = self.in_features - x.shape[-1]\n"
                      f"x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])\n{FORWARD}"},
            seen="an x of another width raised no"),
    "a gradient of another shape than the output is refused",
    Mistake("QLoRALinearFlattensTheGradient", "accepts-nonsense",
            {BACKWARD: 'lead = self.lora._remembered("lead")\n'
                       "grad_x = self.lora.backward(grad_output.reshape(*lead, -1))"},
            seen="a gradient of shape (1, 4, 12) for one of (4, 12) raised no"),
]
