"""The base model of one benchmark: opened or trained, and how much it knows."""

from __future__ import annotations

import time
from dataclasses import replace

from pipeline import train_base
from pipeline.config import Params, build, pick
from pipeline.records import read_examples
from pipeline.storage import write_folder_aside, write_json
from stages import SAMPLER, bench_folder, set_up_torch, start


def base(params: Params, bench: str) -> None:
    """data/S/B/base/ (a Hugging Face folder) and data/S/B/base.json (its quality)."""
    set_up_torch(params)
    where = f"benches.{bench}.base"
    config = build(train_base.Config, pick(params, where), where)
    folder = bench_folder(params, bench)
    examples = read_examples(folder / "prepared" / "examples.parquet")
    began = time.monotonic()
    face, _ = train_base.make_base(examples, config, config.shape, params["seed"])
    seconds = time.monotonic() - began
    write_folder_aside(folder / "base", lambda part: train_base.save_base(face, part))
    if config.sampler is not None:
        small = replace(config, source=None)
        sampler, _ = train_base.make_base(examples, small, config.sampler, params["seed"])
        write_folder_aside(folder / SAMPLER, lambda part: train_base.save_base(sampler, part))
    found = {
        "bench": bench,
        "kind": config.kind,
        "source": config.source or "trained",
        "parameters": face.model.num_parameters(),
        "vocab": len(face.tokenizer),
        "taught": sum(example.split == "train" for example in examples),
        "seconds": seconds,
    }
    write_json(folder / "base.json", found | train_base.quality(face, examples))


if __name__ == "__main__":
    start(base)
