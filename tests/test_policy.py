"""The pages' Content-Security-Policy: there, tight, in nobody's way, and it stops intruders."""

import re

import content_policy
import lite_tools
import pytest
from bs4 import BeautifulSoup
from conftest import HTML, pages
from playwright.sync_api import expect

WIDGETS = "book/05-choosing-a-method.html"
FORMULAS = "book/02-lora.html"
#: Notes each thing that the policy stops, from before the page's first script.
LISTEN = """window.stopped = [];
document.addEventListener("securitypolicyviolation",
    (event) => window.stopped.push(`${event.violatedDirective} ${event.blockedURI}`));"""


def rules(text):
    content = BeautifulSoup(text, "html.parser").find(
        "meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    return dict(rule.strip().split(" ", 1) for rule in content.split(";"))


def all_pages():
    return pages() + sorted(path.name for path in HTML.glob("*.html"))


@pytest.mark.parametrize("page", all_pages())
def test_page_has_a_tight_policy_before_its_first_script(html, page):
    text = (html / page).read_text("utf-8")
    assert len(content_policy.META.findall(text)) == 1
    place = text.index("Content-Security-Policy")
    assert text.index("<meta charset") < 1024  # where browsers look for it
    assert "<script" not in text[:place] and "<link" not in text[:place]
    allowed = rules(text)
    assert allowed["default-src"] == "'none'" and allowed["base-uri"] == "'none'"
    assert "unsafe-inline" not in allowed["script-src"], "inline scripts are allowed"
    words = {word for rule in allowed.values() for word in rule.split()
             if not word.startswith("'sha256-")}
    assert not [word for word in words if "*" in word or "//" in word or word == "https:"]


def test_jupyterlites_pages_reach_nobody_else(site):
    found = sorted((HTML / "lite").rglob("*.html"))
    assert len(found) >= 4
    for page in found:
        allowed = rules(page.read_text("utf-8"))
        assert allowed["default-src"] == "'none'", page
        words = {word for rule in allowed.values() for word in rule.split()}
        assert not {"'unsafe-inline'", "blob:"} & set(allowed["script-src"].split()), page
        assert not [word for word in words if "*" in word or "//" in word or word == "https:"], page


@pytest.mark.parametrize("page", all_pages())
def test_page_has_no_script_in_an_attribute(html, page):
    found = [f"{tag.name} {name}" for tag in
             BeautifulSoup((html / page).read_text("utf-8"), "html.parser").find_all(True)
             for name, value in tag.attrs.items()
             if name.startswith("on") or str(value).strip().lower().startswith("javascript:")]
    assert found == []


def test_a_page_without_a_character_set_is_refused():
    with pytest.raises(ValueError, match="charset"):
        content_policy.with_policy("<html><head></head></html>")


@pytest.mark.parametrize("script", [
    "alert(1)", "let toggleHintShow = 'x'; fetch('//a')", "kernelName = 'python3'; alert(1)",
    "DOCUMENTATION_OPTIONS.pagename = 'a'; alert(1); b = 'c'",
    "DOCUMENTATION_OPTIONS.pagename = 'a\\'; alert(1)//'",
    "await import('./config-utils.js'); await import('//outside.example/a.js')"])
def test_a_script_that_is_not_known_fails_the_build_with_its_text(script):
    page = f'<head><meta charset="utf-8"><script>{script}</script>'
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        content_policy.with_policy(page)
    assert script in str(caught.value) and "known_scripts.json" in str(caught.value)


@pytest.mark.parametrize("script", [
    "DOCUMENTATION_OPTIONS.pagename = 'book/02-lora';", "\n kernelName = 'python3'\n",
    "DOCUMENTATION_OPTIONS.pagename = 'book/exercises/ex1-lora-feed-forward';"])
def test_a_known_script_is_hashed(script):
    page = content_policy.with_policy(f'<head><meta charset="utf-8"><script>{script}</script>')
    assert len(re.findall("sha256-", page)) == 1


def test_a_page_may_what_its_widgets_or_its_python_need_and_no_more(html):
    kinds = set()
    for page in all_pages():
        text = (html / page).read_text("utf-8")
        widgets = "application/vnd.jupyter.widget-view+json" in text
        python = "/start.js" in text
        allowed = {kind: set(rule.split()) for kind, rule in rules(text).items()}
        more = {word for word in allowed["script-src"] if not word.startswith("'sha256-")}
        assert more == {"'self'", "file:", *(["blob:"] if widgets else []),
                        *(["'wasm-unsafe-eval'"] if python else [])}, page
        assert allowed["worker-src"] == {"blob:" if python else "'none'"}, page
        kinds.add((widgets, python))
    assert kinds >= {(False, False), (True, True)}, "it has seen no page of that kind"


@pytest.mark.parametrize("page", [
    '<p>src="../_static/widgets.js" src="../in-page/0/start.js"</p>',
    '<script src="x.js" data-src="../_static/widgets.js"></script>',
    '<script src="../_static/widgets.js/x.js"></script>',
    '<script src="../elsewhere/start.js?/in-page/0/start.js"></script>'])
def test_what_only_names_a_script_opens_nothing(page):
    text = content_policy.with_policy(f'<head><meta charset="utf-8">{page}')
    assert rules(text) == content_policy.SOURCES


def test_in_a_page_without_widgets_a_blob_is_no_script(open_page):
    assert open_page("book/index.html").evaluate("""async () => {
        const code = new Blob(["window.ran = 1"], { type: "text/javascript" });
        const script = document.head.appendChild(document.createElement("script"));
        script.src = URL.createObjectURL(code);
        await new Promise((done) => { script.onload = script.onerror = done; });
        return [window.ran ?? 0, window.stopped.length];
    }""") == [0, 1]


def test_every_script_that_runs_is_hashed_and_doing_it_again_changes_nothing(monkeypatch):
    monkeypatch.setattr(content_policy, "KNOWN", {"let a = 1", "b()"})
    page = ('<head><meta charset="utf-8"><script>let a = 1</script><script src="x.js"></script>'
            '<script type="application/json">{"a": 1}</script><script type="module">b()</script>')
    once = content_policy.with_policy(page)
    assert len(re.findall("sha256-", once)) == 2
    # By hand: printf 'let a = 1' | openssl dgst -sha256 -binary | base64
    assert "sha256-LAfYd7pbFUgwfQu8b4q135PeTG2z+/coPEUYCd74eCQ=" in once
    assert content_policy.with_policy(once) == once


@pytest.fixture(params=["file", "http"])
def open_page(request, chromium, tmp_path):
    """Opens a page of the book, from disk and from a server; `change` may edit its text first.

    It works in a likeness of the built book made of links: other tests read the real one.
    """
    for path in [*HTML.iterdir(), *HTML.glob("book/**/*.html")]:
        likeness = tmp_path / path.relative_to(HTML)
        likeness.parent.mkdir(parents=True, exist_ok=True)
        if path.name != "book":
            likeness.symlink_to(path)
    with lite_tools.served(tmp_path) as address:
        context = chromium.new_context()
        base = tmp_path.as_uri() if request.param == "file" else address

        def open_page(name, change=None):
            page = context.new_page()
            page.add_init_script(LISTEN)
            page.heard = []
            page.on("console", lambda message: page.heard.append(message.text))
            if change:
                text = (HTML / name).read_text("utf-8")
                name = name.replace(".html", "-changed.html")
                (tmp_path / name).write_text(change(text), "utf-8")
            page.goto(f"{base}/{name}")
            return page

        yield open_page
        context.close()


def complaints(page):
    return [text for text in page.heard if "Content Security Policy" in text]


@pytest.mark.parametrize("name", [WIDGETS, FORMULAS, "book/index.html",
                                  "book/exercises/index.html", "search.html?q=rank"])
def test_the_policy_is_in_nobodys_way(open_page, name):
    page = open_page(name)
    if name == WIDGETS:
        page.evaluate("() => bookWidgets.showAll()")
        page.wait_for_selector(".cell_output input[type=range]", timeout=30_000)
        slider = page.locator(".cell_output input[type=range]").first
        before = slider.get_attribute("aria-valuetext")
        slider.focus()
        page.keyboard.press("End")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        expect(slider).not_to_have_attribute("aria-valuetext", before)
    if name == FORMULAS:
        page.wait_for_selector(".katex", state="attached", timeout=30_000)
    if "search" in name:
        page.wait_for_selector("#search-results li a", timeout=20_000)
    page.wait_for_timeout(500)
    assert page.evaluate("window.stopped") == []
    assert complaints(page) == []


def test_a_script_that_gets_into_a_page_does_not_run(open_page):
    bad = ("<script>window.ran = 'inline'</script>"
           "<img src=nowhere.png onerror=\"window.ran = 'attribute'\">"
           "<a id=bad href=\"javascript:void(window.ran = 'link')\">x</a>")
    page = open_page(FORMULAS, lambda text: text.replace("</article>", bad + "</article>"))
    page.evaluate(r"""() => {
        document.getElementById("bad").click();
        const box = document.body.appendChild(document.createElement("div"));
        box.innerHTML = "<img src=nowhere.png onerror=\"window.ran = 'pasted'\">";
        const script = document.createElement("script");
        script.textContent = "window.ran = 'appended'";
        document.body.append(script);
    }""")
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran") is None
    assert len(page.evaluate("window.stopped")) >= 4


def test_nothing_can_be_sent_to_another_host(open_page):
    page = open_page("book/index.html")
    said = page.evaluate("""async () => {
        new Image().src = "https://outside.example/a.png";
        return fetch("https://outside.example/").then(() => "sent", (error) => String(error));
    }""")
    assert "sent" not in said
    page.wait_for_timeout(200)
    stopped = page.evaluate("window.stopped")
    assert any(what.startswith("connect-src") for what in stopped)
    assert any(what.startswith("img-src") for what in stopped)


def test_without_the_policy_the_same_script_runs(open_page):
    """The test above can fail: it is the policy that stops the script, and nothing else."""
    page = open_page(FORMULAS, lambda text: content_policy.META.sub("", text).replace(
        "</article>", "<script>window.ran = 'inline'</script></article>"))
    assert page.evaluate("window.ran") == "inline"
