"""The files of this repository that a book is made of: those in its own folders, through no link.

A link in a folder would bring into the published book whatever it leads to on the machine that
builds it, a key in somebody's home, say. Git keeps links, so a patch can bring one.
"""

#: What programs leave in folders.
SKIPPED = {"__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".hypothesis"}


def files_below(path, root):
    """Files at or below a path, in order, without what programs leave there.

    Raises
    ------
    RuntimeError
        Between `root` and a file, or in its place, is a link. One that leads nowhere is passed
        over: editors leave such.
    """
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    found = [one for one in found if not SKIPPED & set(one.relative_to(root).parts)]
    real = root.resolve()
    for one in found:
        if one.exists() and one.resolve() != real / one.relative_to(root):
            raise RuntimeError(f"{one.relative_to(root)} is, or lies behind, a link to elsewhere, "
                               "and would bring into the book what that leads to: put the file "
                               "itself there, or take the link away")
    return [one for one in found if one.is_file()]
