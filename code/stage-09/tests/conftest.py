import sys
from pathlib import Path

# The folder's name is no Python identifier, so it goes on the path: `import peft` is this course's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
