"""Make everything the quickstart trains on: questions, a tiny model with latent capability, and a report about it.

    python examples/arithmetic/prepare.py --out data/arithmetic

writes into --out

    train.parquet, test.parquet   questions in verl's layout
    model/                        a Llama of 0.4M parameters with its tokenizer, warm-started here (about half a minute)
    latent.json, latent.png       its success probabilities on the train prompts
    stamp.json                    what it was made with

A finished folder made with the same settings is left as it is; the work happens in a folder beside it that takes its
place at the end, so what is at --out is never half-made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

SOURCES = ("prepare.py", "questions.py", "tiny_model.py", "warm_start.py", "latent.py", "reward.py")
PRODUCTS = {"train.parquet", "test.parquet", "model", "latent.json", "latent.png", "stamp.json"}
DATA_SOURCE = "cero/arithmetic"
MAX_RESPONSE = 8  # tokens, <eos> included: the longest is "(792)92<eos>"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The settings; all but --out, --threads and --force are part of the stamp."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="of questions, weights, warm start and sampling")
    parser.add_argument("--train", type=int, default=480, help="train questions")
    parser.add_argument("--test", type=int, default=240, help="held-out questions of the same families")
    parser.add_argument("--lowest", type=float, default=0.015, help="share of the right procedure, hardest family")
    parser.add_argument("--highest", type=float, default=0.95, help="share of the right procedure, easiest family")
    parser.add_argument("--hidden", type=int, default=128, help="model width; 32 per attention head")
    parser.add_argument("--layers", type=int, default=2, help="model depth")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of the warm start")
    parser.add_argument("--batch", type=int, default=80, help="answers per step of the warm start")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate of the warm start")
    parser.add_argument("--samples", type=int, default=16, help="responses per train prompt for the report, at least 8")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1), help="CPU threads for torch")
    parser.add_argument("--force", action="store_true", help="make the folder again even if it is finished")
    return parser.parse_args(argv)


def make_stamp(arguments: argparse.Namespace) -> dict:
    """What a folder depends on: the settings, and a hash of the code that makes it."""
    settings = {k: v for k, v in sorted(vars(arguments).items()) if k not in ("out", "threads", "force")}
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    return {"settings": settings, "code": digest.hexdigest()}


def is_finished(folder: Path, stamp: dict) -> bool:
    """Whether `folder` is complete and was made with `stamp`."""
    try:
        found = json.loads((folder / "stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == stamp and all((folder / name).exists() for name in PRODUCTS)


def make_rows(families, split, name: str) -> list[dict]:
    """One dict per question, as verl's RLHFDataset reads it."""
    return [
        {
            "data_source": DATA_SOURCE,
            "prompt": [{"role": "user", "content": families[f].question(n)}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(families[f].right(n))},
            "extra_info": {"split": name, "index": i, "family": families[f].name, "slip": str(families[f].slip(n))},
        }
        for i, (f, n) in enumerate(zip(split.family.tolist(), split.n.tolist(), strict=True))
    ]


def write_parquet(rows: list[dict], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def make(arguments: argparse.Namespace, folder: Path) -> None:
    """Everything but the stamp, into an existing empty `folder`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from a hub
    # Threads that wait by sleeping: where other processes use the cores too, spinning ones take several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch
    import transformers
    from latent import by_family, sample_successes, summarise, write_report
    from questions import make_families, make_splits
    from reward import compute_score
    from tiny_model import make_model, make_tokenizer
    from warm_start import Mixture, train

    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    families = make_families(arguments.seed, arguments.lowest, arguments.highest)
    splits = make_splits(families, arguments.seed, arguments.train, arguments.test)
    rows = {name: make_rows(families, split, name) for name, split in zip(("train", "test"), splits, strict=True)}
    for name in rows:
        write_parquet(rows[name], folder / f"{name}.parquet")

    torch.manual_seed(arguments.seed)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, arguments.hidden, arguments.layers, arguments.hidden // 32)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"warm start: {size:.2f}M parameters, {arguments.steps} steps of {arguments.batch} answers", flush=True)
    data = Mixture(families, splits, tokenizer, arguments.steps * arguments.batch, arguments.seed)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        train(model, data, Path(scratch), arguments.batch, arguments.lr, arguments.seed)
    print(f"warm start: {time.perf_counter() - start:.0f} s", flush=True)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")

    torch.manual_seed(arguments.seed)
    successes = sample_successes(
        model, tokenizer, rows["train"], arguments.samples, MAX_RESPONSE,
        lambda response, truth: compute_score(DATA_SOURCE, response, truth)["score"] == 1.0,
    )  # fmt: skip
    measured = by_family(rows["train"], successes, arguments.samples)
    shown = {f.name: {"share": round(f.share, 4), "measured": measured[f.name]} for f in families if f.name in measured}
    write_report(folder, summarise(successes, arguments.samples), shown)


def replace(new: Path, old: Path) -> None:
    """Put the finished folder `new` in the place of `old`, which may exist if it holds nothing but our own products."""
    if old.exists():
        old.rename(discarded := new.with_name(new.name + ".old"))
        new.rename(old)
        shutil.rmtree(discarded)
    else:
        new.rename(old)


def check_replaceable(folder: Path) -> None:
    """Refuse to touch a folder with anything in it that this script does not write."""
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in PRODUCTS) if folder.exists() else []
    if foreign:
        raise SystemExit(f"{folder} holds other things ({', '.join(foreign[:3])}): choose another --out")


def show(folder: Path) -> None:
    """Print the summary of a finished folder."""
    from rich.console import Console
    from rich.table import Table

    report = json.loads((folder / "latent.json").read_text(encoding="utf-8"))
    table = Table(title=f"Warm start on {report['prompts']} train prompts, {report['samples_per_prompt']} samples each")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in report.items():
        if isinstance(value, float):
            table.add_row(key.replace("_", " ").replace(" .2 .8", " [.2, .8]"), f"{value:.3f}")
    Console().print(table)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    start = time.perf_counter()
    out, stamp = arguments.out.resolve(), make_stamp(arguments)
    if not arguments.force and is_finished(out, stamp):
        print(f"{out} is finished and was made with these settings: reused")
    else:
        check_replaceable(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        work.chmod(0o755)  # mkdtemp makes it private
        try:
            make(arguments, work)
            (work / "stamp.json").write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
            replace(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        print(f"{out}: made in {time.perf_counter() - start:.0f} s")
    show(out)


if __name__ == "__main__":
    main()
