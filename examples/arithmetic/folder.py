"""How does a task become a folder that is either finished or not there at all? Shared by such tasks.

A finished folder made with the same settings and code is left as it is. The work happens in a folder beside
it that takes its place at the end, so what is at --out is never half-made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cero.cli.arguments import above_zero, at_least, at_least_one, at_least_zero, inner_share, share
from cero.cli.output import errors_in_one_line

HERE = Path(__file__).resolve().parent
SHARED = ("folder.py", "items.py", "tiny_model.py", "warm_start.py", "latent.py")  # the code of all tasks
PRODUCTS = {
    *("train.parquet", "test.parquet", "train_sample.parquet"),
    *("model", "latent.json", "latent.png", "stamp.json"),
}
SAMPLE = 240  # train questions in train_sample.parquet, whatever the number of train questions


@dataclass(frozen=True)
class Task:
    """What is particular to a task."""

    data_source: str
    ability: str
    pieces: tuple[str, ...]  # of the tokenizer, besides the special ones
    max_response: int  # tokens, <eos> included
    sources: tuple[Path, ...]  # the task's own code
    # Gives three lists of items.Item: for training, held out, for the warm start only. Of the first, those
    # beyond --train are trained on by reinforcement only.
    make_items: Callable[[argparse.Namespace], tuple[list, list, list]]
    # Gives the reward function. Called only when it is needed, because of its imports.
    compute_score: Callable[[], Callable]


def add_settings(parser: argparse.ArgumentParser, **defaults) -> None:
    """Add the settings of all tasks. All but --out, --threads and --force are part of the stamp."""
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--seed", type=at_least_zero, default=0, help="of questions, weights, warm start and sampling"
    )
    parser.add_argument("--train", type=at_least_one, default=480, help="train questions")
    parser.add_argument(
        "--test", type=at_least_one, default=240, help="held-out questions of the same families"
    )
    parser.add_argument(
        "--lowest", type=inner_share, default=0.015, help="share of the right procedure, hardest family"
    )
    parser.add_argument(
        "--highest", type=inner_share, default=0.95, help="share of the right procedure, easiest family"
    )
    parser.add_argument("--hidden", type=at_least_one, default=128, help="model width; 32 per attention head")
    parser.add_argument("--layers", type=at_least_one, default=2, help="model depth")
    parser.add_argument("--steps", type=at_least_one, default=600, help="optimizer steps of the warm start")
    parser.add_argument(
        "--execution", type=share, default=0.0, help="see warm_start.py; above 0 raises the ceiling"
    )
    parser.add_argument("--batch", type=at_least_one, default=80, help="answers per step of the warm start")
    parser.add_argument("--lr", type=above_zero, default=2e-3, help="peak learning rate of the warm start")
    parser.add_argument(
        "--weights", type=Path, help="a model.safetensors made by these settings: taken, not trained anew"
    )
    parser.add_argument(
        "--samples",
        type=at_least(8),
        default=16,
        help="responses per train prompt for the report",
    )
    parser.add_argument(
        "--threads", type=at_least_one, default=min(4, os.cpu_count() or 1), help="CPU threads for torch"
    )
    parser.add_argument("--force", action="store_true", help="make the folder again even if it is finished")
    parser.set_defaults(**defaults)


def make_stamp(task: Task, arguments: argparse.Namespace) -> dict:
    """Return what a folder depends on: the settings, and a hash of the code that makes it."""
    settings = {
        k: v for k, v in sorted(vars(arguments).items()) if k not in ("out", "threads", "force", "weights")
    }
    digest = hashlib.sha256()
    weights = [arguments.weights] if arguments.weights else []
    for path in (*task.sources, *(HERE / name for name in SHARED), *weights):
        digest.update(path.read_bytes())
    return {"settings": settings, "code": digest.hexdigest()}


def is_finished(folder: Path, stamp: dict) -> bool:
    """Return whether `folder` is complete and was made with `stamp`."""
    try:
        found = json.loads((folder / "stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == stamp and all((folder / name).exists() for name in PRODUCTS)


def make(task: Task, arguments: argparse.Namespace, folder: Path) -> None:
    """Make everything but the stamp, in an existing empty `folder`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from a hub
    # Threads wait by sleeping. Where other processes use the cores too, spinning takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch
    import transformers
    from items import make_rows, write_parquet
    from latent import by_family, sample_successes, summarise, write_report
    from tiny_model import make_model, make_tokenizer
    from warm_start import Mixture, train

    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    compute_score = task.compute_score()
    with errors_in_one_line("prepare.py"):
        train_items, test_items, practice = task.make_items(arguments)
    first_items = train_items[: arguments.train]  # further ones are no part of the warm start
    splits = {"train": train_items, "test": test_items}
    rows = {name: make_rows(items, name, task.data_source, task.ability) for name, items in splits.items()}
    # A data source of its own, so that accuracy on these is not taken for held-out accuracy.
    rows["train_sample"] = make_rows(train_items[:SAMPLE], "train", f"{task.data_source}/train", task.ability)
    for name in rows:
        write_parquet(rows[name], folder / f"{name}.parquet")

    torch.manual_seed(arguments.seed)
    tokenizer = make_tokenizer(task.pieces)
    model = make_model(tokenizer, arguments.hidden, arguments.layers, arguments.hidden // 32)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    if arguments.weights:
        from safetensors.torch import load_model

        load_model(model, arguments.weights)
        print(f"warm start: {size:.2f}M parameters of {arguments.weights}", flush=True)
    else:
        print(
            f"warm start: {size:.2f}M parameters, {arguments.steps} steps of {arguments.batch} answers",
            flush=True,
        )
        items = [*first_items, *test_items, *practice]
        data = Mixture(
            items, tokenizer, arguments.steps * arguments.batch, arguments.seed, arguments.execution
        )
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            train(model, data, Path(scratch), arguments.batch, arguments.lr, arguments.seed)
        print(f"warm start: {time.perf_counter() - start:.0f} s", flush=True)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")

    torch.manual_seed(arguments.seed)
    first_rows = rows["train"][: len(first_items)]
    successes = sample_successes(
        model, tokenizer, first_rows, arguments.samples, task.max_response,
        lambda response, truth: compute_score(task.data_source, response, truth)["score"] == 1.0,
    )  # fmt: skip
    shares: dict[str, list[float]] = {}
    for item in first_items:
        shares.setdefault(item.family, []).append(item.share)
    families = {
        name: {"share": round(sum(shares[name]) / len(shares[name]), 4), "measured": measured}
        for name, measured in by_family(first_rows, successes, arguments.samples).items()
    }
    write_report(folder, summarise(successes, arguments.samples), dict(sorted(families.items())))


def replace(new: Path, old: Path) -> None:
    """Put the finished folder `new` in the place of `old`, which may exist if it holds only PRODUCTS."""
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
    table = Table(
        title=f"Warm start on {report['prompts']} train prompts, {report['samples_per_prompt']} samples each"
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in report.items():
        if isinstance(value, float):
            table.add_row(key.replace("_", " ").replace(" .2 .8", " [0.2, 0.8]"), f"{value:.3f}")
    Console().print(table)


def prepare(task: Task, arguments: argparse.Namespace) -> None:
    """Make the folder at --out unless it is finished, and show its report."""
    start = time.perf_counter()
    if arguments.weights and not arguments.weights.is_file():
        raise SystemExit(f"--weights {arguments.weights}: there is no such file")
    out, stamp = arguments.out.resolve(), make_stamp(task, arguments)
    if not arguments.force and is_finished(out, stamp):
        print(f"{out} is finished and was made with these settings: reused")
    else:
        check_replaceable(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        work.chmod(0o755)  # mkdtemp makes it private
        try:
            make(task, arguments, work)
            (work / "stamp.json").write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
            replace(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        print(f"{out}: made in {time.perf_counter() - start:.0f} s")
    show(out)
