import sys
from pathlib import Path

import pytest

# The folder's name is no Python identifier, so it goes on the path: `import peft` is this course's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(autouse=True)
def endless_loops_are_not_traced(request):
    """The time limit of the exercise checks gives way to a tracer, such as coverage's.

    Then an endless loop would be one: the few tests with such a loop run without the tracer.
    """
    tracer = sys.gettrace() if "ndless" in request.node.name else None
    if tracer is not None:
        sys.settrace(None)
    yield
    if tracer is not None:
        sys.settrace(tracer)
