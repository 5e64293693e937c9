"""Hold the counts of every model type of transformers against what transformers builds.

    .venv-oracle/bin/python code/stage-09/tests/oracle/sweep_families.py

For each model type that has a class for a language, image-and-text or speech model: its default
configuration, whole and as saved (only what differs from the class's defaults), read by our table.
Prints a line for each class: right, or refused and why, or wrong with both numbers. The types that
the table knows come first, in all their classes; of the others one class each.
"""

import json
import warnings

import infer_families as inferring
from transformers import AutoConfig, logging
from transformers.models.auto import modeling_auto

MAPPINGS = ("CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM", "IMAGE_TEXT_TO_TEXT",
            "SPEECH_SEQ_2_SEQ", "IMAGE_CLASSIFICATION", "SEQUENCE_CLASSIFICATION")


def verdict(model_type: str, class_name: str) -> str:
    try:
        config = AutoConfig.for_model(model_type)
        config.num_labels = 3  # not what a classifier has by default
    except Exception as error:
        return f"refused: transformers builds no default, {type(error).__name__}"
    cls = getattr(inferring.transformers, class_name)
    found = "right"
    for written in (config.to_dict(), config.to_diff_dict() | {"model_type": model_type}):
        try:
            ours = inferring.accounting.read_model(
                json.loads(json.dumps(written, default=str)) | {"architectures": [class_name]})
        except (ValueError, TypeError) as error:
            found = f"refused: {error}"[:160]
            continue
        with inferring.torch.device("meta"):
            theirs = sum(p.numel() for p in cls(config).parameters())
        if ours.num_parameters != theirs:
            return f"wrong: {ours.num_parameters}, {theirs}"
    return found


def main() -> None:
    types = {}
    for name in MAPPINGS:
        for model_type, cls in getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES").items():
            if isinstance(cls, str):
                types.setdefault(model_type, {})[cls] = None
    known = inferring.accounting.FAMILIES
    for model_type, classes in sorted(types.items(), key=lambda each: each[0] not in known):
        for cls in classes if model_type in known else list(classes)[:1]:
            print(f"{model_type} {cls}: {verdict(model_type, cls)}", flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    main()
