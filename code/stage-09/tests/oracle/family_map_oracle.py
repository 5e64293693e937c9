"""Which names of the family's map the installed Hugging Face PEFT has. Run by .venv-oracle.

`python family_map_oracle.py asked.json` prints, in JSON, for each claim [name, option, value] "" or
why PEFT does not have it, and for each file of PEFT whether it is there.
"""

import json
import sys
import warnings
from operator import attrgetter
from pathlib import Path

import peft
import peft.optimizers  # noqa: F401, looked up by name
import torch


class OneLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 6)


def missing(name: str, option: str, value: object) -> str:
    """Why PEFT does not have it; an option's value is tried on a layer where that shows."""
    try:
        found = attrgetter(name)(peft)
        if option:
            config = found(**{option: value})
            if option == "init_lora_weights":  # a wrong one is refused by the layer alone
                config.target_modules = {"linear"}
                peft.get_peft_model(OneLayer(), config)
    except ImportError as needed:  # known, but it wants a further package
        return "" if "required package" in str(needed) else str(needed)
    except (AttributeError, TypeError, ValueError) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    home = Path(peft.__file__).parent
    print(json.dumps({"version": peft.__version__,
                      "claims": [missing(*claim) for claim in asked["claims"]],
                      "files": [(home / file).is_file() for file in asked["files"]]}))
