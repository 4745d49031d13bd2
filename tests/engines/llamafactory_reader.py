"""Runs in LLaMA-Factory's own environment: reads a dataset with its real loader and prints what it made of
it.

    python llamafactory_reader.py FOLDER NAME STAGE MODEL MASK_HISTORY

One line of JSON: how many examples survived, and of each what the model reads and what counts.
"""

import json
import sys
import tempfile
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

SHOWN = 200


def main(folder: Path, name: str, stage: str, model: str, mask_history: str) -> None:
    """Read the dataset as a training would."""
    with tempfile.TemporaryDirectory() as output:
        model_args, data_args, training_args, _, _ = get_train_args(
            {
                "model_name_or_path": model,
                "stage": stage,
                "do_train": True,
                "finetuning_type": "lora",
                "template": "smollm2",
                "dataset_dir": str(folder),
                "dataset": name,
                "mask_history": mask_history == "yes",
                "cutoff_len": 8192,
                "overwrite_cache": True,
                "output_dir": output,
                "use_cpu": True,
                "report_to": "none",
            }
        )
        tokenizer = load_tokenizer(model_args)["tokenizer"]
        template = get_template_and_fix_tokenizer(tokenizer, data_args)
        kind = "rm" if stage == "dpo" else stage
        found = get_dataset(template, model_args, data_args, training_args, stage=kind, tokenizer=tokenizer)
        read, counts = ("chosen_input_ids", "chosen_labels") if stage == "dpo" else ("input_ids", "labels")
        rows = found["train_dataset"]
        shown = [
            {
                "ids": row[read],
                "text": tokenizer.decode(row[read]),
                "counts": tokenizer.decode([one for one in row[counts] if one >= 0]),
            }
            for row in rows.select(range(min(SHOWN, len(rows))))
        ]
    print(json.dumps({"examples": len(rows), "rows": shown}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
