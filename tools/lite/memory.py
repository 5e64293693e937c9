"""What a page's Python has imported when it starts: IPython, as JupyterLite's kernel sets it up.

memory.mjs runs this inside Pyodide and keeps the memory. NumPy stays out, as compiled modules must;
so does what belongs to JavaScript: reader.py gives it back.
"""

import gc
import importlib
import sys
import types


def stand_in(name, **members):
    """An empty module of this name, so that importing it loads nothing."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)
    return name


importlib.invalidate_caches()
# IPython imports both for what no page has: a history of commands in a file, and a terminal, which
# would bring prompt_toolkit. A cell that imports sqlite3 gets the real one.
left_out = [stand_in("sqlite3", PARSE_DECLTYPES=1, PARSE_COLNAMES=2, Connection=type(None),
                     **dict.fromkeys(("DatabaseError", "IntegrityError", "OperationalError"),
                                     RuntimeError)),
            stand_in("IPython.terminal.embed", embed=None)]
import pyodide_kernel.kernel  # noqa: E402

for name in left_out:
    del sys.modules[name]
pyodide_kernel.kernel._load_packages_from_imports = None
gc.collect()
