"""What is worth trying in the study? Its tasks, trained in one process without verl: half a minute a run.

    python scripts/benchmark/single_process.py runs/benchmark/data/letters --seeds 0,1 \\
        uniform uniform@n=4 cero_seq/n_max=64@n=4

The results are leads, not evidence. `cero benchmark` prepares the folder. Model, questions, rewards,
allocators, advantages and loss are the study's (one update a step, averaged over tokens, AdamW); there is no
engine and no Ray. A contender is written as for `cero simulate`, with its allocator's own bounds where it
gives none. Behind an @ stands what else differs: n (rollouts per prompt), batch (prompts a step), lr,
baseline (mean or optimal), exact (1: each step costs batch x n; 0: what the allocator asks for, within the
run's budget). CERO as shipped is cero:signal_hard@n=1,batch=40,baseline=optimal.

The budget of rollouts is the same for all, so fewer rollouts a step are more steps. A run adds one JSON line
to --out: rollouts, held-out accuracy after them, its area, and accuracy on the train questions at the end.
`single_process_table.py` makes a table of them."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.integrate import trapezoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from cero.allocators.rounds import play
from cero.core.checks import check_choice
from cero.estimators.advantage import Groups, advantages, known_so_far
from cero.estimators.baseline import BASELINES, OptimalBaseline, score_weights
from cero.estimators.keep import kept
from cero.research.simulation.methods import parse_method

POINTS = 10  # validations of a run
SAMPLES = 4  # a held-out question at each


class Questions:
    """Holds the rows of a parquet file, tokenized and padded on the left."""

    def __init__(self, path, tokenizer):
        rows = pq.read_table(path).to_pylist()
        texts = [
            tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=False)
            for r in rows
        ]
        encoded = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        self.ids, self.mask = encoded["input_ids"], encoded["attention_mask"]
        self.truths = [row["reward_model"]["ground_truth"] for row in rows]
        self.source = rows[0]["data_source"]

    def __len__(self):
        return len(self.truths)


class Policy:
    """Samples from the tiny model, scores and learns."""

    def __init__(self, folder, score, length, lr, seed):
        self.model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        self.score, self.length = score, length
        self.draw = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.01)

    @torch.no_grad()
    def sample(self, questions, rows):
        """Return (responses, rewards, weights) to questions[rows]: padded token ids, and float arrays.

        weights : of `cero.estimators.baseline.score_weights`
        """
        rows = torch.as_tensor(rows)
        ids, mask = questions.ids[rows], questions.mask[rows]
        place = (mask.cumsum(-1) - 1).clamp(min=0)
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        responses = torch.full((len(rows), self.length), pad)
        over, log_probs = torch.zeros(len(rows), dtype=torch.bool), torch.zeros(len(rows), self.length)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=place, use_cache=True, logits_to_keep=1
        )
        place = place[:, -1:]
        for at in range(self.length):
            likely = torch.softmax(out.logits[:, -1], -1)
            token = torch.multinomial(likely, 1, generator=self.draw)[:, 0]
            log_probs[:, at] = likely.gather(1, token[:, None])[:, 0].log()
            responses[:, at] = token = torch.where(over, pad, token)
            over |= token == end
            if over.all() or at == self.length - 1:
                break
            mask, place = torch.cat([mask, mask.new_ones(len(rows), 1)], 1), place + 1
            out = self.model(
                input_ids=token[:, None], attention_mask=mask, position_ids=place,
                past_key_values=out.past_key_values, use_cache=True,
            )  # fmt: skip
        texts = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        scored = (
            self.score(questions.source, text, questions.truths[row])
            for text, row in zip(texts, rows.tolist(), strict=True)
        )
        weights = score_weights(log_probs.numpy(), self.said(responses).numpy())
        return responses, np.array([each["score"] for each in scored]), weights

    def said(self, responses):
        """Return which tokens count, those up to the end of the response: bool, shape of `responses`."""
        end = (responses == self.tokenizer.eos_token_id).long()
        return (end.cumsum(1) - end == 0) & (responses != self.tokenizer.pad_token_id)

    def learn(self, questions, rows, responses, advantage):
        """Make one policy-gradient update, on policy, averaged over all tokens given."""
        said = self.said(responses)
        total = said.sum()
        moves = np.flatnonzero(np.abs(advantage) > 1e-9)
        if not moves.size:
            return
        rows, responses, said = torch.as_tensor(rows[moves]), responses[moves], said[moves]
        ids = torch.cat([questions.ids[rows], responses], 1)
        mask = torch.cat([questions.mask[rows], said.long()], 1)
        place = (mask.cumsum(-1) - 1).clamp(min=0)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=place, logits_to_keep=responses.shape[1] + 1
        )
        likely = torch.log_softmax(out.logits[:, :-1], -1).gather(-1, responses[..., None])[..., 0]
        weight = torch.as_tensor(advantage[moves], dtype=torch.float32)[:, None]
        self.optimizer.zero_grad()
        (-(likely * said * weight).sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def run(folder, score, label, seed, budget, n=8, batch=16, lr=2e-4, length=14):
    """Train once; return the record of the run."""
    started = time.perf_counter()
    written, _, more = label.partition("@")
    own = dict(word.split("=") for word in more.split(",")) if more else {}
    n, batch, lr = int(own.pop("n", n)), int(own.pop("batch", batch)), float(own.pop("lr", lr))
    kind = check_choice("baseline", own.pop("baseline", "mean"), BASELINES)
    exact = check_choice("exact", own.pop("exact", "1"), ("0", "1")) == "1"
    if own:
        raise ValueError(
            f"contender {label!r}: behind the @ may stand n, batch, lr, baseline, exact, "
            f"not {next(iter(own))!r}"
        )
    optimal = OptimalBaseline() if kind == "optimal" else None
    contender = parse_method(written)
    policy = Policy(folder, score, length, lr, seed * 7919 + 13)
    train, test = (Questions(folder / f"{split}.parquet", policy.tokenizer) for split in ("train", "test"))
    epochs = max(1, round(budget / (len(train) * n)))
    allocator = contender.make(rollouts_per_prompt=n, epochs=epochs, seed=seed, total_budget=budget)
    order, chooser = np.random.default_rng([seed, 23]), np.random.default_rng([seed, 29])
    every = np.tile(np.arange(len(test)), SAMPLES)
    spent, accuracy, to_come = [0], [policy.sample(test, every)[1].mean()], []
    while allocator.ledger.left >= batch * (1 if allocator.sequential else max(allocator.n_min, 1)):
        if len(to_come) < batch:
            to_come = np.concatenate([to_come, order.permutation(len(train))]).astype(np.int64)
        rows, to_come = to_come[:batch], to_come[batch:]
        ids = rows.astype(np.uint64)
        history = allocator.success_mean(ids)
        step, drawn = allocator.begin(ids, min(batch * n, allocator.ledger.left) if exact else None), []

        def sample(prompts, rollouts, rows=rows, step=step, drawn=drawn):
            group = np.repeat(prompts, rollouts)
            responses, rewards, weights = policy.sample(train, rows[group])
            drawn.append((group, rewards, np.repeat(step.rounds[prompts] - 1, rollouts), weights, responses))
            return np.bincount(group, rewards, rows.size)[prompts], rollouts

        play(step, sample)
        group, rewards, rounds, weights = (np.concatenate([part[i] for part in drawn]) for i in range(4))
        responses = torch.cat([part[4] for part in drawn])
        allocator.settle(step, np.bincount(group, rewards, batch), np.bincount(group, minlength=batch))
        trials, successes = known_so_far(
            rewards, group, rounds if contender.estimator == "posterior" else None
        )
        stays = np.arange(group.size)
        if contender.keep != "all":
            lengths = policy.said(responses).sum(1).numpy()
            chosen = {"ratio": contender.ratio, "count": contender.count}
            stays = np.flatnonzero(kept(contender.keep, rewards, group, lengths, chooser, **chosen))
        baseline = None
        if optimal is not None:
            baseline = optimal.of_step(ids, group[stays], rewards[stays], weights[stays], rounds[stays])
        advantage = advantages(
            contender.estimator,
            Groups(rewards[stays], group[stays], batch, trials[stays], successes[stays], baseline),
            history,
            prompt_weight=contender.weight,
            rollouts_per_prompt=n,
            history=contender.history,
        )
        policy.learn(train, rows[group[stays]], responses[stays], advantage)
        if allocator.ledger.spent >= budget * len(spent) / POINTS:
            spent.append(int(allocator.ledger.spent))
            accuracy.append(policy.sample(test, every)[1].mean())
    trained = policy.sample(train, np.arange(len(train)))[1].mean()
    return {
        "task": folder.name,
        "contender": label,
        "seed": seed,
        "spent": spent,
        "accuracy": [round(float(each), 4) for each in accuracy],
        "area": round(float(trapezoid(accuracy, spent) / spent[-1]), 4),
        "train_accuracy": round(float(trained), 4),
        "seconds": round(time.perf_counter() - started, 1),
    }


def load_score(task):
    """Return the task's reward function."""
    from importlib.util import module_from_spec, spec_from_file_location

    path = Path(__file__).resolve().parents[2] / "examples" / task / "reward.py"
    spec = spec_from_file_location(f"{task}_reward", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_score


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a prepared task")
    parser.add_argument("contenders", nargs="+", help="e.g. uniform, cero_seq/n_max=64@n=4,batch=16")
    parser.add_argument("--task", choices=("letters", "arithmetic"), help="default: the folder's name")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--budget", type=int, default=10240, help="rollouts of a run")
    parser.add_argument("--out", type=Path, default=Path("single_process.jsonl"), help="lines are added")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    score = load_score(arguments.task or arguments.folder.name)
    for seed in map(int, arguments.seeds.split(",")):
        for label in arguments.contenders:
            record = run(arguments.folder, score, label, seed, arguments.budget)
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(
                f"{seed} {label}: area {record['area']:.3f}, {record['accuracy'][-1]:.3f} at last", flush=True
            )


if __name__ == "__main__":
    main()
