"""The course's own way to write a file whole or not at all, for the tools and benchmarks."""

import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[1] / "code" / "stage-09"
sys.path.insert(0, str(CODE))
from tensorfile import replacing, write_whole  # noqa: E402

__all__ = ["replacing", "write_whole"]
