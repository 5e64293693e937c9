import sys

import pytest


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
