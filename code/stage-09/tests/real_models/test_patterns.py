"""Matching against Python's own `re`, and patterns that would keep it busy."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_config import PROJECTIONS
from real_models.patterns import fullmatch, within

NAMES = [f"model.layers.{i}.{p}" for i in (0, 1, 11) for p in PROJECTIONS] + ["lm_head"]
UNSLOTH = (r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
           r"(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)|"
           r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)"
           r"\.(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))")


@pytest.mark.parametrize("pattern", [
    r".*\.(q|v)_proj", r"model\.layers\.\d+\.self_attn\.[qkv]_proj", ".*proj", "lm_head", UNSLOTH,
    r"^model.layers.(?:0|1)\..*$", r".*\.1{1}\..*", r".*\.1{2}\..*", r".*[^_]proj", "", "(?P<a>.*)",
    r"^(?!.*lm_head).*_proj$", r".*(?<!up|dn)_proj", r"(?=.*mlp).*(?<=up_proj)", "(?!x)*.*",
    r".*layers\.1{1,}\.mlp\.\w+", r"(model|lm)[\w.]*", r"[^.]+\b_?.*", r".*?(up|down)_pro?j"])
def test_what_adapters_have_as_targets_matches_as_python_says(pattern):
    for name in NAMES:
        assert fullmatch(pattern, name) == bool(re.fullmatch(pattern, name)), name


ATOMS = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", r"\b", "^", "$", "c"])
PATTERNS = st.recursive(ATOMS, lambda inner: st.one_of(
    st.lists(inner, min_size=1, max_size=3).map("".join),
    st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
    st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{,2}", "{2,}"])).map(
        lambda pair: f"(?:{pair[0]}){pair[1]}"),
    inner.map("(?={})".format), inner.map("(?!{})".format),
    ATOMS.map("(?<={})".format), ATOMS.map("(?<!{})".format)), max_leaves=8)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(PATTERNS, st.text("abc.", max_size=6))
def test_any_pattern_matches_as_python_says(pattern, text):
    assert fullmatch(pattern, text) == bool(re.fullmatch(pattern, text))


@pytest.mark.parametrize("pattern", [
    "(a+)+$", "(a|a)*b", "(" * 39 + "a*" + ")*" * 39, "(|a)" * 40 + "b", "a?" * 300 + "b",
    "(a?){900}(a{1,900}){900}b", "(.*)*" * 20 + "b", "(?=(a+)+b)" * 15 + "(?!(a|a)*b).*"],
    ids=range(8))
def test_no_pattern_takes_long(pattern):
    start = time.process_time()
    fullmatch(pattern, "a" * 60)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("pattern", [
    "(a", "a)", "*a", "(?<=a*)b", "(a)?(?(1)b|c)", r"(a)\1", "(?i)a", "[a", "a" * 1001,
    "(" * 450 + ")" * 450, "a**", r"\p", "a*+", ".*" * 41, "(a)" * 41], ids=range(15))
def test_what_is_not_understood_is_refused(pattern):
    with pytest.raises(ValueError):
        fullmatch(pattern, "model.layers.0.mlp.up_proj")


def test_a_limit_of_time_holds_inside_alone():
    with pytest.raises(ValueError, match="too long"):
        with within(-1):
            fullmatch("a+", "a")
    with within(5), within(5):
        assert fullmatch("a+", "a")
    with pytest.raises(ValueError, match="too long"), within(-1), within(5):
        fullmatch("a+", "a")
    assert fullmatch("a+", "a")
