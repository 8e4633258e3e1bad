"""How often is the model right before training? A table and a picture, by family.

    python examples/fewshot/rates.py --model data/fewshot/model --raw data/fewshot/rates.jsonl --seconds 280

For every family it draws --prompts training prompts. Where an answer is one string, the probability that the
model writes it and ends the line is exact, by one forward pass. Other forms that the reward accepts, such as
a full stop at the end, are left out. Of --sampled prompts of each family (all of them where working comes
first), --samples continuations are drawn at temperature 1 and judged by the reward.

Families whose prompts are in --raw are not measured again: --seconds lets a run end early, and the same
command goes on. Once all are there, rates.csv and rates.png are written beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

import numpy as np

from cero.cli.arguments import at_least_one, at_least_zero, zero_or_more

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from families import FAMILIES, KEPT, Family, deal  # noqa: E402
from prepare import HELD_OUT_FAMILIES, draw_prompts, line_ends  # noqa: E402
from reward import compute_score  # noqa: E402

GROUP = 8  # rollouts: all right or all wrong, and GRPO learns nothing from them
MIDDLE = (0.2, 0.8)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder made by prepare.py")
    parser.add_argument("--raw", type=Path, required=True, help="file of one line a prompt")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table and the picture")
    parser.add_argument("--prompts", type=at_least_one, default=32, help="of each family")
    parser.add_argument(
        "--sampled", type=at_least_zero, default=4, help="prompts of each family that are sampled, too"
    )
    parser.add_argument("--samples", type=at_least_one, default=16, help="continuations of a sampled prompt")
    parser.add_argument("--seed", type=at_least_zero, default=0, help="of prompts and samples")
    parser.add_argument("--threads", type=at_least_one, default=1)
    parser.add_argument(
        "--seconds", type=zero_or_more, default=float("inf"), help="begin no family after so many"
    )
    return parser.parse_args(argv)


class Model:
    """The model on a CPU, in float32."""

    def __init__(self, folder: Path):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        self.ends = torch.tensor(ends)
        assert set(line_ends(self.tokenizer)) <= set(ends), f"{folder} was not made by this prepare.py"

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def exact(self, pairs: list[tuple[str, str]], batch: int = 16) -> list[float]:
        """Return for each (prompt, answer) the probability of " answer" and then the end of the line."""
        torch, result = self.torch, []
        for first in range(0, len(pairs), batch):
            encoded = [(self.tokens(p), self.tokens(" " + a)) for p, a in pairs[first : first + batch]]
            width = max(len(p) + len(a) for p, a in encoded)
            rows = torch.tensor([[*p, *a] + [0] * (width - len(p) - len(a)) for p, a in encoded])
            with torch.no_grad():
                hidden = self.model.model(rows, use_cache=False).last_hidden_state
                for state, (prompt, answer) in zip(hidden, encoded, strict=True):
                    n = len(prompt) - 1  # this place predicts the answer's first token
                    logs = self.model.lm_head(state[n : n + len(answer) + 1]).log_softmax(-1)
                    written = logs[:-1].gather(-1, torch.tensor(answer)[:, None]).sum()
                    result.append(float((written + logs[-1, self.ends].logsumexp(-1)).exp()))
        return result

    def sample(self, prompts: list[str], samples: int, most: int, batch: int = 4) -> list[list[str]]:
        """Return `samples` continuations of each prompt, of at most `most` tokens, each to its line's end."""
        result = []
        for first in range(0, len(prompts), batch):
            result += self._sample(prompts[first : first + batch], samples, most)
        return result

    def _sample(self, prompts: list[str], samples: int, most: int) -> list[list[str]]:
        torch = self.torch
        encoded = [self.tokens(prompt) for prompt in prompts]
        width = max(map(len, encoded))
        rows = torch.tensor([[0] * (width - len(ids)) + ids for ids in encoded])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded])
        with torch.no_grad():
            out = self.model(
                rows,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=True,
                logits_to_keep=1,
            )
            cache = out.past_key_values
            cache.batch_repeat_interleave(samples)
            mask = mask.repeat_interleave(samples, 0)
            logits = out.logits[:, -1].repeat_interleave(samples, 0)
            place = mask.sum(-1, keepdim=True)
            texts: list[list[int]] = [[] for _ in range(len(mask))]
            rows = torch.arange(len(mask))  # places in `texts`
            going = torch.ones(len(mask), dtype=torch.bool)
            for _ in range(most):
                drawn = torch.multinomial(logits.softmax(-1), 1)
                for i, token in zip(rows[going].tolist(), drawn[going, 0].tolist(), strict=True):
                    texts[i].append(token)
                going &= ~torch.isin(drawn[:, 0], self.ends)
                if not going.any():
                    break
                if going.float().mean() < 0.75:  # copying the cache has its price
                    kept = going.nonzero()[:, 0]
                    cache.batch_select_indices(kept)
                    rows, going, drawn, mask, place = (t[kept] for t in (rows, going, drawn, mask, place))
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], -1)
                out = self.model(
                    drawn, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True
                )
                logits, place = out.logits[:, -1], place + 1
        decoded = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in texts]
        return [decoded[i : i + samples] for i in range(0, len(decoded), samples)]


def measure(model: Model, family: Family, arguments: argparse.Namespace) -> list[dict]:
    """Return one record a prompt: its rate `p`, and where it was sampled `right` of `samples`."""
    rng = np.random.default_rng([arguments.seed, *family.name.encode()])
    model.torch.manual_seed(int(rng.integers(2**31)))
    pairs = draw_prompts(family, rng, arguments.prompts, held_out=False)
    sampled = len(pairs) if family.working else arguments.sampled
    texts = model.sample([p for p, _ in pairs[:sampled]], arguments.samples, 40 if family.working else 8)
    rates = [None] * len(pairs) if family.working else model.exact(pairs)
    records = []
    for i, ((prompt, answer), rate) in enumerate(zip(pairs, rates, strict=True)):
        record = {"family": family.name, "prompt": prompt, "answer": answer, "p": rate}
        record["exact"] = not family.working
        record["prompt_tokens"] = len(model.tokens(prompt))
        record["answer_tokens"] = len(model.tokens(" " + answer)) + 1
        if i < sampled:
            scores = [compute_score(f"fewshot/{family.name}", text, answer)["score"] for text in texts[i]]
            record |= {"right": int(sum(scores)), "samples": len(scores), "texts": texts[i][:4]}
            if family.working:
                record["p"] = record["right"] / record["samples"]
                record["answer_tokens"] = float(np.mean([len(model.tokens(text)) for text in texts[i]]))
        records.append(record)
    return records


def no_signal(p: np.ndarray) -> np.ndarray:
    """Return the probability that a group of GROUP rollouts is all right or all wrong."""
    return p**GROUP + (1 - p) ** GROUP


def middle(p: np.ndarray) -> np.ndarray:
    """Return which success rates lie in MIDDLE."""
    return (p >= MIDDLE[0]) & (p <= MIDDLE[1])


def summary(name: str, lines: int, records: list[dict]) -> dict:
    """Return one row of the table."""
    p = np.array([record["p"] for record in records])
    both = [record for record in records if record["exact"] and "right" in record]
    return {
        "family": name,
        "lines": lines,
        "p": p.mean(),
        "sd": p.std(),
        "no_signal": no_signal(p).mean(),
        "middle": middle(p).mean(),
        "prompt_tokens": np.mean([record["prompt_tokens"] for record in records]),
        "answer_tokens": np.mean([record["answer_tokens"] for record in records]),
        "checked_exact": np.mean([record["p"] for record in both]) if both else "",
        "checked_sampled": np.mean([record["right"] / record["samples"] for record in both]) if both else "",
    }


def draw(path: Path, rows: list[dict], records: dict[str, list[dict]], mixed: list[dict]) -> None:
    """Draw the mixture's histogram and each family's prompts."""
    from cero.analysis.figures import figure

    rng = np.random.default_rng(0)
    with figure(path, 1, 2, (10, 7.5)) as (fig, (left, right)):
        p = np.array([record["p"] for record in mixed])
        left.hist(p, bins=np.linspace(0, 1, 21), weights=np.full(len(p), 100 / len(p)), color="tab:blue")
        left.axvspan(*MIDDLE, color="0.92", zorder=0)
        left.set(xlabel="success rate p of a prompt", ylabel="% of the prompts trained on", xlim=(0, 1))
        left.set_title(
            f"groups of {GROUP} without signal: {no_signal(p).mean():.0%}\n"
            f"prompts with p in [{MIDDLE[0]}, {MIDDLE[1]}]: {middle(p).mean():.0%}",
            fontsize=10,
        )
        for place, row in enumerate(sorted(rows, key=lambda row: row["p"])):
            points = np.array([record["p"] for record in records[row["family"]]])
            height = place + rng.uniform(-0.3, 0.3, len(points))
            right.plot(points, height, ".", color="tab:blue", markersize=3, alpha=0.5)
            right.plot(row["p"], place, "|", color="black", markersize=9, markeredgewidth=2)
        names = [row["family"] for row in sorted(rows, key=lambda row: row["p"])]
        right.set_yticks(range(len(names)), [name + " *" * (name in KEPT) for name in names], fontsize=7.5)
        right.set(xlabel="success rate p of a prompt", xlim=(0, 1))
        right.set_title("each family's prompts; bar: their mean\n*: may be kept from training", fontsize=10)
        right.set_ylim(-0.7, len(names) - 0.3)
    shrink(path)


def shrink(path: Path) -> None:
    """Store a picture with a palette of 64 colours."""
    from PIL import Image

    Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def report(arguments: argparse.Namespace, records: dict[str, list[dict]]) -> None:
    """Write the table and the picture, and print the table for the README."""
    rows = [summary(family.name, family.lines, records[family.name]) for family in FAMILIES]
    mixed = [record for family in deal(HELD_OUT_FAMILIES)[0] for record in records[family.name]]
    kept = KEPT[:HELD_OUT_FAMILIES]
    lines = sum(row["lines"] for row in rows if row["family"] not in kept)
    total = summary("all trained", lines, mixed)
    with (arguments.out / "rates.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(total))
        writer.writeheader()
        for row in [*rows, total]:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    draw(arguments.out / "rates.png", rows, records, mixed)
    print("| family | a line | lines | mean p | sd | no signal | p in [0.2, 0.8] | tokens |\n|" + "---|" * 8)
    for row, family in [*zip(rows, FAMILIES, strict=True), (total, None)]:
        line = "`{}` {}".format(*family.line(np.random.default_rng(1))) if family else ""
        lines_of = f"{family.lines:,}" if family else ""
        print(
            f"| {row['family']}{' *' * (row['family'] in kept)} | {line} | {lines_of} "
            f"| {row['p']:.2f} | {row['sd']:.2f} | {row['no_signal']:.0%} | {row['middle']:.0%} "
            f"| {row['prompt_tokens']:.0f} + {row['answer_tokens']:.1f} |"
        )


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    records: dict[str, list[dict]] = {}
    if arguments.raw.exists():
        for line in arguments.raw.read_text().splitlines():
            record = json.loads(line)
            records.setdefault(record["family"], []).append(record)
    wanted = [family for family in FAMILIES if family.name not in records]
    start, model = time.monotonic(), None
    for family in wanted:
        if time.monotonic() - start > arguments.seconds:
            print(f"{len(records)} of {len(FAMILIES)} families measured; the same command goes on")
            return
        if model is None:
            model = Model(arguments.model)
            model.torch.set_num_threads(arguments.threads)
        records[family.name] = measure(model, family, arguments)
        arguments.raw.parent.mkdir(parents=True, exist_ok=True)
        with arguments.raw.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records[family.name])
        p = np.array([record["p"] for record in records[family.name]])
        print(
            f"{family.name}: mean p {p.mean():.3f}, sd {p.std():.3f}, {time.monotonic() - start:.0f} s",
            flush=True,
        )
    report(arguments, records)


if __name__ == "__main__":
    main()
