"""Sphinx extension of this book: what Jupyter Book's configuration file cannot say.

- The repository's address comes from REPOSITORY_URL or from git at build time. Without one there is
  no launch, edit or repository button: each would lead nowhere.
- Thebe is left out. It would fetch its code from another host, and Jupyter Book adds its
  script twice, which is an error in every page's console.
"""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def repository_url():
    """Web address of the repository, from REPOSITORY_URL or the remote `origin`; None without."""
    address = os.environ.get("REPOSITORY_URL", "").strip()
    if not address:
        asked = subprocess.run(["git", "-C", ROOT, "remote", "get-url", "origin"],
                               capture_output=True, text=True, check=False)
        address = asked.stdout.strip()
    address = re.sub(r"^(ssh://)?git@([^:/]+)[:/]", r"https://\2/", address)
    address = re.sub(r"//[^/@]+@", "//", address)  # never publish a user or token from a remote
    address = re.sub(r"(\.git)?/?$", "", address)
    return address if re.fullmatch(r"https://[^/]+\.[^/]+/[^/]+/.+", address) else None


def set_repository(app, config):
    options = config.html_theme_options
    url = repository_url()
    options["repository_url"] = url or ""
    options["repository_branch"] = os.environ.get("REPOSITORY_BRANCH", "main")
    for button in ("use_repository_button", "use_edit_page_button", "use_issues_button"):
        options[button] = bool(url)
    options["launch_buttons"] = {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org" if url and "github.com" in url else "",
    }


def drop_thebe(app, pagename, templatename, context, doctree):
    def is_thebe(script):
        filename = getattr(script, "filename", None) or ""
        body = getattr(script, "attributes", {}).get("body") or ""
        return "thebe" in filename or "THEBE_JS_URL" in body

    context["script_files"] = [s for s in context["script_files"] if not is_thebe(s)]


def setup(app):
    app.connect("config-inited", set_repository)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
