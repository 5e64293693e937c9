"""The one place where pages compute less in a browser than on your machine.

Python in the browser has no fast library for matrix products; training there is ten to thirty times
slower. Pages that train only to show what happens take their batch size from here. What they claim
is asserted on the page and holds for both.
"""

import sys

#: Whether this is Python in the reader's browser (Pyodide).
IN_BROWSER = sys.platform == "emscripten"
#: Names per training batch where a page shows what training does.
BATCH = 16 if IN_BROWSER else 64
