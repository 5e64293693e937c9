"""What a tokenizer.json may make of a text; what the package says of each step; what gets around.

Nothing here is encoded that would fill the memory if the reader let it pass.
"""

import json
import time
from base64 import b64encode
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from experiments import smollm2 as runner
from real_models import checklist, smollm2, tokenizer_file
from real_models.smollm2 import read_tokenizer, token_ids
from real_models.tokenizer_file import GROWTH, check_tokenizer_file
from tensorfile import HubError

DOUBLE = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
A, B = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
MANY = {"single": [A] * 60, "pair": [A, B], "special_tokens": {}}
BARE = json.loads(Tokenizer(models.BPE({"e": 0, "b": 1}, [])).to_str())
TABLE = b64encode((4).to_bytes(4, "little") + b"----" + b"ab\0" + b"x" * 33 + b"\0").decode()


def write(folder, **parts):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(BARE | parts), encoding="utf-8")
    return path


def sequence(*steps, inside="normalizers"):
    return {"type": "Sequence", inside: list(steps)}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


HOSTILE = {  # what stands in the file, what the refusal names
    "doubling": ({"normalizer": sequence(*[DOUBLE] * 17)}, "131,?072|1.31e"),
    "in sequences": ({"normalizer": sequence(sequence(*[DOUBLE] * 9), sequence(*[DOUBLE] * 9))},
                     "times as long"),
    "in two parts": ({"normalizer": sequence(*[DOUBLE] * 12), "post_processor": {
        "type": "TemplateProcessing", **MANY}}, "times as long"),
    "while decoding": ({"decoder": sequence(*[DOUBLE] * 17, inside="decoders")}, "decoder can"),
    "a long text": ({"normalizer": replace("e", "e" * 200_000)}, "times as long"),
    "of nothing": ({"normalizer": replace("", "e" * 100_000)}, "times as long"),
    "of any pattern": ({"normalizer": replace("a*", "e" * 100_000, "Regex")}, "times as long"),
    "before each": ({"normalizer": sequence(*[{"type": "Prepend", "prepend": "e" * 99}] * 3)},
                    "times as long"),
    "a table": ({"normalizer": sequence(*[{
        "type": "Precompiled", "precompiled_charsmap": TABLE}] * 4)}, "times as long"),
    "bytes of bytes": ({"pre_tokenizer": sequence(*[{
        "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
        "use_regex": True}] * 9, inside="pretokenizers")}, "times as long"),
    "a ligature again": ({"normalizer": sequence(*[replace("\u0635\u0644\u0649", "\ufdfa"), {
        "type": "NFKD"}] * 5)}, "times as long"),
    "a template": ({"post_processor": sequence(*[{"type": "TemplateProcessing", **MANY}] * 3,
                                               inside="processors")}, "times as long"),
    "a token of many": ({"post_processor": sequence(*[{
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 60,
        "pair": [A, B], "special_tokens": {"x": {
            "id": "x", "ids": [0] * 60, "tokens": ["e"] * 60}}}] * 2, inside="processors")},
                        "times as long"),
    "another type's": ({"post_processor": sequence(*[{"type": "ByteLevel", **MANY}] * 3,
                                                   inside="processors")}, "times as long"),
    "another part's type": ({"normalizer": DOUBLE | {"type": "Digits"}}, "normalizer has.*Digits"),
    "no type": ({"normalizer": sequence(*[{k: v for k, v in DOUBLE.items() if k != "type"}] * 17)},
                "normalizer has"),
    "no names": ({"normalizer": [["e"], "ee"]}, "normalizer must be a JSON object"),
    "a long special token": ({"post_processor": {
        "type": "TemplateProcessing", "pair": [A, B],
        "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 200,
        "special_tokens": {"x": {"id": "x", "ids": [0], "tokens": ["y" * 9_000]}}}},
                             "add 1,800,000 bytes"),
    "a long token": ({"model": {"type": "WordLevel", "vocab": {"e": 0, "U" * 9_000: 1},
                                "unk_token": "e"}}, "model has a text of 9,000 bytes"),
    "a long prefix": ({"model": BARE["model"] | {"continuing_subword_prefix": "#" * 9_000}},
                      "model has a text of 9,000 bytes"),
    "many steps": ({"normalizer": sequence(*[{"type": "NFC"}] * 500)}, "501 steps"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_would_fill_the_memory_is_refused_before_anything_is_encoded(case, tmp_path):
    parts, said = HOSTILE[case]
    path = write(tmp_path, **parts)
    with pytest.raises(HubError, match=f"tokenizer.json.*({said})") as error:
        read_tokenizer(path)
    assert len(str(error.value)) < 1000


def test_the_checklist_says_it_too(tmp_path):
    write(tmp_path, normalizer=sequence(*[DOUBLE] * 17))
    with pytest.raises(HubError, match="times as long"):
        checklist.tokenizer(tmp_path, SimpleNamespace(vocab_size=2))


def test_a_part_that_stands_twice_or_under_an_escaped_name_is_found(tmp_path):
    bomb = json.dumps(sequence(*[DOUBLE] * 17))
    for text in ('"normalizer": {"type": "NFC"}, "normalizer": ' + bomb,
                 '"normaliz\\u0065r": ' + bomb):
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(BARE).replace('"normalizer": null', text))
        with pytest.raises(HubError, match="times as long"):
            read_tokenizer(path)
    path.write_text(json.dumps(BARE).replace('"normalizer": null', '"normalizer": ' + json.dumps(
        DOUBLE).replace("{", '{"content": "e", ', 1)))
    with pytest.raises(HubError, match="'content' stands twice"):
        read_tokenizer(path)


@pytest.mark.parametrize("data", [
    b'{"a": "' + b'\\"' * 3_000_000, b'"' * 3_000_001, b'{"a": ' + b"[" * 3_000_000,
    b'{"normalizer": {"a": "' + b"x" * 3_000_000 + b'"}}'], ids=range(4))
def test_no_file_takes_long_to_look_through(data, tmp_path):
    path, start = tmp_path / "tokenizer.json", time.process_time()
    path.write_bytes(data)
    with pytest.raises(HubError):
        read_tokenizer(path)
    assert time.process_time() - start < 5


SOUND = [  # those of well-known files, and what only looks like a repeat in a repeat
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",  # Llama 3; Qwen has \p{N} alone
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",  # o200k
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # DeepSeek
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
    r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # the whole of o200k, with Kimi's classes in classes
    " ?[^(\\s|[.,!?\u2026\u3002])]+", r"\s+", "(?i)a+", "a*b+c*(?:d|e)?", "a*+b*+c*+d",
    " {2,}", r"\d{1,3}(?=(?:\d{3})*\b)",
    r"(?>a+)+b", r"(?:a++b)+", r"\(a+\)+", "[(]a+[)]+", "(?#(a+)b(c+)", r"(?:\p{L}\x{41})+"]


@pytest.mark.parametrize("expression", SOUND)
def test_expressions_of_well_known_files_are_read(expression, tmp_path):
    for part in ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": expression},
                                    "behavior": "Isolated", "invert": False}},
                 {"normalizer": replace(expression, " ", "Regex")}):
        read_tokenizer(write(tmp_path, **part))


@pytest.mark.parametrize("expression", [
    "(a+)+$", "(?:a*)*$", "(?:x|(a{1,})b?)*$", "(?<n>(a+?)){2,}", "a{1,}+", "([^]a]+)+",
    "(?i:a+)*?", "(?>(a+)+b)", "((a+))+", "(a+)(?#c)+",
    "(?:.|.){22}b", "(?:a|b)*$", "(?:a{1,3})*$", "(a?){9}", "(?:(?:a|b)c){0,9}"])
def test_a_choice_in_a_repeat_is_refused_before_the_package_tries_it(expression, tmp_path):
    for part in ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": expression},
                                    "behavior": "Isolated", "invert": False}},
                 {"normalizer": sequence(replace(expression, " ", "Regex"))},
                 {"decoder": replace(expression, " ", "Regex")}):
        with pytest.raises(HubError, match="tokenizer.json.*repeated"):
            read_tokenizer(write(tmp_path, **part))


@pytest.mark.parametrize("expression", [
    "[^#]{0,40}" * 4 + "(?<=#)", "a*a*b", "(?:a*)(a*)(?=b)", "a*(?:a*b|c)", "a?" * 20 + "b",
    "a{3}?" * 20 + "b", "(?:a|a)" * 20 + "b", "a*?a*?b", "a*(?!a*b)", "(?>a*a*b)c", "a*a*b{}",
    "a{,200}a{200,0}b", "x|(?:y(?:a+a+)z)?"])
def test_repeats_in_a_row_are_refused_before_the_package_tries_them(expression, tmp_path):
    long = {"id": 2, "content": "a" * 200, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": True, "special": False}  # is normalized as soon as the file is opened
    for part in ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": expression},
                                    "behavior": "Isolated", "invert": False}},
                 {"normalizer": replace(expression, " ", "Regex"), "added_tokens": [long]},
                 {"decoder": replace(expression, " ", "Regex")}):
        with pytest.raises(HubError, match="tokenizer.json.*one after the other"):
            check_tokenizer_file(write(tmp_path, **part))


def test_the_slowest_that_is_read_does_not_take_long(tmp_path):
    """Of a long added token each place is tried; a longer one is no token."""
    token = {"content": "a" * 256, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": True, "special": False}
    slow = {"normalizer": replace("[^#]{0,40}[^#]{0,40}(?<=#)", "", "Regex")}
    start = time.process_time()
    read_tokenizer(write(tmp_path, **slow, added_tokens=[{**token, "id": 2}]))
    assert time.process_time() - start < 5
    for content in ("a" * 257, "\u2581" * 100):
        with pytest.raises(HubError, match="added_tokens"):
            read_tokenizer(write(tmp_path, added_tokens=[{**token, "content": content, "id": 2}]))


def test_expressions_whose_groups_cannot_be_seen_are_refused(tmp_path):
    hidden = "[ab]*" * 8 + "(?<=#)"  # in a group without an end, were a bracket a group's
    for expression in ("(?~#)" * 4 + "(?<=#)", "a*(?i)|b", "(?x)(a+) +$",
                       "(?i-mx: (a+) +)$", r"(?<n>a+){0}(\g<n>)+$",
                       "[([[[[x]]]]]?" + hidden, r"(?:\c()?" + hidden, r"(?:\C-()?" + hidden,
                       r"(?:\M-()?" + hidden, "(" + hidden, "[a"):
        with pytest.raises(HubError, match="not read"):
            read_tokenizer(write(tmp_path, normalizer=replace(expression, " ", "Regex")))


def llama(t):
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                   decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing("e $A", "e $A e $B", [("e", 0)])


def qwen(t):
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    t.post_processor, t.decoder = processors.ByteLevel(), decoders.ByteLevel()


def bert(t):
    t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.BertProcessing(("e", 0), ("b", 1))
    t.decoder = decoders.WordPiece()
    t.enable_padding(length=512)
    t.enable_truncation(384, stride=128)


def albert(t):  # published files have these steps twice
    t.normalizer = normalizers.Sequence([
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), *[
            normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
            normalizers.Replace("x", " ")] * 2])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    t.post_processor = processors.TemplateProcessing("e $A b", "e $A b $B b", [("e", 0), ("b", 1)])
    t.decoder = decoders.Metaspace()


@pytest.mark.parametrize("kind", [llama, qwen, bert, albert])
def test_tokenizers_as_they_are_published_are_read(kind, tmp_path):
    made, path = Tokenizer(models.BPE({"e": 0, "b": 1}, [])), tmp_path / "tokenizer.json"
    kind(made)
    made.save(str(path))
    check_tokenizer_file(path)
    made.no_padding()
    assert read_tokenizer(path).encode("be e").ids == made.encode("be e").ids


def test_a_text_is_neither_filled_up_nor_cut(tmp_path):
    """By a text of 100,000 letters for each of 100,000 tokens, say; and a prompt stays whole."""
    padding = {"strategy": {"Fixed": 100_000}, "direction": "Right", "pad_to_multiple_of": None,
               "pad_id": 0, "pad_type_id": 0, "pad_token": "x" * 100_000}
    cut = {"direction": "Right", "max_length": 2, "stride": 0, "strategy": "LongestFirst"}
    for parts in ({"padding": padding}, {"truncation": cut}):
        assert len(token_ids(read_tokenizer(write(tmp_path, **parts)), "ebe")) == 3


def test_a_long_text_is_read_in_pieces_that_end_with_a_line(tmp_path):
    """`[^#]*(?<=#)` takes hours for two million letters, and none of Ctrl+C."""
    path = write(tmp_path, pre_tokenizer={
        "type": "Split", "pattern": {"Regex": r"[^#]*(?<=#)"}, "behavior": "Isolated",
        "invert": False})
    made, seen = read_tokenizer(path), []

    class Watched:
        def encode(self, text, **options):
            seen.append(text)
            return made.encode(text, **options)

    text = ("eb" * 40 + "\n") * 500 + "b" * 30_000
    found = token_ids(Watched(), text)
    assert "".join(seen) == text and max(map(len, seen)) <= smollm2.LONG
    assert all(piece.endswith("\n") for piece in seen[:4]) and len(seen) == 8
    assert found == [{"e": 0, "b": 1}[sign] for sign in text if sign in "eb"]
    for short in ("", "\n", "e" * smollm2.LONG):
        assert token_ids(made, short) == made.encode(short).ids


LETTERS = [*map(chr, range(1, 0x3100)), *map(chr, range(0xac00, 0xac20)), *"\ufdfa\ufdfb\U0001d160",
           *"\U0001d161\U0001f600"]


def size(text):
    return len(text.encode())


@pytest.mark.parametrize("kind", [k for k, n in GROWTH["normalizer"].items() if n > 1])
def test_a_normalizer_makes_no_letter_longer_than_the_table_says(kind):
    step = getattr(normalizers, kind)()
    most = max(size(step.normalize_str(letter)) / size(letter) for letter in LETTERS)
    assert GROWTH["normalizer"][kind] / 2 < most <= GROWTH["normalizer"][kind]


@pytest.mark.parametrize("kind", [k for k in GROWTH["pre_tokenizer"] if k not in (
    "CharDelimiterSplit", "FixedLength", "Sequence", "Split")])
def test_a_pre_tokenizer_makes_no_letter_longer_than_the_table_says(kind):
    step = getattr(pre_tokenizers, kind)(*["\U0001f600"] * (kind == "Metaspace"))
    most = max(sum(size(piece) for piece, _ in step.pre_tokenize_str(letter)) / size(letter)
               for letter in LETTERS)
    assert most == GROWTH["pre_tokenizer"][kind]


@pytest.mark.parametrize(("step", "token"), [
    (decoders.BPEDecoder(suffix=""), "a"), (decoders.CTC(word_delimiter_token=""), "a"),
    (decoders.WordPiece(), "a"), (decoders.ByteLevel(), "é")])
def test_a_decoder_makes_no_token_longer_than_the_table_says(step, token):
    most = GROWTH["decoder"][type(step).__name__]
    tokens = [token, "b"] * 50
    assert most / 2 < size(step.decode(tokens)) / size("".join(tokens)) + 0.2 <= most + 0.2


def test_every_kind_of_the_package_is_known():
    """But for those that only a program can make, and the classes that they come from."""
    for part, module, other in (
            ("normalizer", normalizers, {"Normalizer"}), ("decoder", decoders, {
                "Decoder", "DecodeStream"}),
            ("pre_tokenizer", pre_tokenizers, {"PreTokenizer"}),
            ("post_processor", processors, {"PostProcessor"})):
        kinds = {name for name, value in vars(module).items() if isinstance(value, type)
                 and issubclass(value, getattr(module, part.title().replace("_", "")))}
        assert kinds - other == GROWTH[part].keys(), part
    assert tokenizer_file.ONCE <= GROWTH["normalizer"].keys()


BREAKS = {"pattern": {"Regex": "(e+)+b"}, "type": "Split", "behavior": "Isolated", "invert": False}


def test_where_the_package_itself_breaks_the_error_names_the_text(monkeypatch):
    """Its own is no Exception at all: a reader's `except Exception` would let it through."""
    tokenizer = Tokenizer.from_str(json.dumps(BARE | {"pre_tokenizer": BREAKS}))
    assert smollm2.token_ids(tokenizer, "eb") == [0, 1]
    assert smollm2.text_of(tokenizer, [0, 1]) == "e b"
    with pytest.raises(HubError, match="text 'eee.*says 'Onig"):
        smollm2.token_ids(tokenizer, "e" * 30)
    monkeypatch.setattr(smollm2, "chat", "{}".format)
    with pytest.raises(HubError, match="text 'eee"):
        next(smollm2.answer(None, tokenizer, "e" * 30))
    with pytest.raises(HubError, match="text 'Schedule: eee"):
        runner.encode(tokenizer, [SimpleNamespace(words="e" * 30, answer="b")])
    with pytest.raises(HubError, match=r"tokens \[-1\]"):
        smollm2.text_of(tokenizer, [-1])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_not_the_packages_own_error_stays_what_it_is(error):
    def broken(*_):
        raise error
    stand_in = SimpleNamespace(encode=broken, decode=broken)
    for work in (lambda: smollm2.token_ids(stand_in, "e"), lambda: smollm2.text_of(stand_in, [0]),
                 lambda: smollm2.tokenizers_own("a file", broken)):
        with pytest.raises(error):
            work()
