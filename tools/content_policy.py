"""The Content-Security-Policy of the built pages: what a browser may load and run there.

A page may run the book's own files and the inline scripts that Sphinx, the theme and JupyterLite
write into it, each by the hash of its text. Those are known: known_scripts.json holds them, and a
page with another one is refused with its text. So no script gets a hash because it got into a page,
and what comes into one later, from a pasted `config.json`, say, does not run. Nothing may be asked
of another host.
"""

import base64
import hashlib
import json
import re
from pathlib import Path

#: Of each kind, where it may come from. `file:` stands beside 'self', since not every browser
#: counts the folder of a page that was opened from disk as the page itself.
SOURCES = {
    "default-src": "'none'",
    "script-src": "'self' file:",
    "style-src": "'self' file: 'unsafe-inline'",  # KaTeX and the widgets write their own
    "img-src": "'self' file: data: blob:",
    "font-src": "'self' file: data:",  # the icons' font is inside its style sheet
    "connect-src": "'self' file:",
    "worker-src": "'none'",
    "form-action": "'self' file:",  # the search box
    "base-uri": "'none'",
}
#: What a page may besides, if it loads one of these scripts, known by the end of its address.
ADDED = {
    # it imports a widget's module from a blob
    re.compile(r"(^|/)_static/widgets\.js$"): {"script-src": "blob:"},
    # Python in the page: WebAssembly in a worker from a blob; from a file it would have no policy
    re.compile(r"(^|/)in-page/\w+/start\.js$"): {
        "script-src": "'wasm-unsafe-eval'", "worker-src": "blob:"},
}
#: Those of JupyterLite's pages, which compile schemas and Python, make workers and show what cells
#: made. No script that a notebook brings or its cells make runs in such a page: it would have the
#: book's origin, and with it all that the browser keeps. Only files of the book are scripts there,
#: and no blob is one, which a cell's Python can make, too; so a widget's front end is a file
#: (own_widgets in lite/build.py). The cells' Python itself can fetch from no other host either: its
#: worker starts in a blob (early.js), which has its page's policy, also where there is no service
#: worker. Only in Firefox, and where a service worker controls the page, does it start from a file,
#: and that gives it this same policy (under-policy.js). Tried in Chromium and Firefox; in Safari,
#: not tried, it is as in Firefox.
JUPYTERLITE = SOURCES | {
    "script-src": "'self' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "media-src": "'self' data: blob:",
    "connect-src": "'self' data: blob:",
    "worker-src": "'self' blob:",  # 'self' for the service worker, through which cells read files
    "manifest-src": "'self'",
    "form-action": "'none'",
}
SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.DOTALL | re.IGNORECASE)
SOURCE = re.compile(r'(?<![\w-])src="([^"?]*)')
META = re.compile(r'\s*<meta http-equiv="Content-Security-Policy"[^>]*>')
CHARSET = re.compile(r"<meta charset=[^>]*>", re.IGNORECASE)


#: Inline scripts that pages may hold, spaces and `VARIES` aside: a page's own name, a checksum.
KNOWN = set(json.loads(Path(__file__).with_name("known_scripts.json").read_text("utf-8")))
VARIES = re.compile(r"(?<=DOCUMENTATION_OPTIONS\.pagename = ')[\w/-]+(?=')"
                    r'|(?<=<img src=")(?:\.\./)+(?=_static/)'
                    r"|(?<=\?_=)[0-9a-f]{7}(?=')")


def known_form(script):
    """How known_scripts.json holds a script."""
    return " ".join(VARIES.sub("", script).split())


def inline_hashes(text):
    """The hashes, as a policy names them, of all scripts inside a page; data blocks do not run.

    Raises
    ------
    ValueError
        A script that is not known.
    """
    found = {}
    for attributes, body in SCRIPT.findall(text):
        kind = re.search(r'\btype="([^"]*)"', attributes)
        runs = not kind or kind[1] in ("", "module", "text/javascript")
        if runs and not re.search(r"\bsrc=", attributes):
            if known_form(body) not in KNOWN:
                raise ValueError(f"a page holds a script that is not known:\n{body}\nIf the theme "
                                 "or JupyterLite has a new one, read it, and add it to "
                                 f"known_scripts.json as {json.dumps(known_form(body))}")
            digest = hashlib.sha256(body.replace("\r\n", "\n").encode()).digest()
            found[f"'sha256-{base64.b64encode(digest).decode()}'"] = None
    return list(found)


def loaded(text):
    """The addresses of the scripts that a page loads, without what only tells their editions."""
    found = (SOURCE.search(attributes) for attributes, _ in SCRIPT.findall(text))
    return [source[1] for source in found if source]


def policy(text, sources):
    """What a page's policy says; the scripts in it, and those that it loads, add to the sources."""
    rules = {kind: where.split() for kind, where in sources.items()}
    rules["script-src"] += inline_hashes(text)
    for script, added in ADDED.items():
        if any(script.search(address) for address in loaded(text)):
            for kind, where in added.items():
                rules[kind] = [word for word in rules[kind] if word != "'none'"] + where.split()
    return "; ".join(f"{kind} {' '.join(where)}" for kind, where in rules.items())


def with_policy(text, sources=SOURCES):
    """The page with its policy, right behind the declaration of its character set.

    Raises
    ------
    ValueError
        The page declares none, so there is no safe place; or it holds a script not known.
    """
    text = META.sub("", text)
    found = CHARSET.search(text)
    if not found:
        raise ValueError("a page without <meta charset>: where should its policy stand?")
    tag = f'\n    <meta http-equiv="Content-Security-Policy" content="{policy(text, sources)}">'
    return text[:found.end()] + tag + text[found.end():]
