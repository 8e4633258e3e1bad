"""How much of the value within families does one look at a prompt find, while a pretrained model learns?

    python -m cero.research.laboratory.prefill run --data runs/benchmark/data/fewshot-fresh --steps 40
    python -m cero.research.laboratory.prefill table docs/results/study/prefill.jsonl

A prompt's value is p (1-p), p its success probability: what a rollout tells the gradient. The laboratory says
that a choice of prompts within families wins where it finds enough of that value. Here it is measured how
much can be found before anything is sampled. In each step the model looks once at POOL fresh prompts of each
family. A linear fit predicts each prompt's value from scalars of that look, and the best prompt of each
family is compared with the truth, which is exact by teacher forcing. Then the model trains on some of the
step's prompts, drawn at random, in pairs of rollouts, and the fit learns from these. So what is predicted
changes nothing of the training, and all predictors are judged on the same prompts.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cero.cli.arguments import above_zero, at_least_one, at_least_zero
from cero.cli.main import execute
from cero.research.laboratory.__main__ import load_score
from cero.research.study.study_report import markdown_table

POOL = 4  # prompts of a family in a step, of which one is chosen
TRAINED, PAIR = 32, 2  # prompts that are trained on in a step, and the rollouts of each
LENGTH = 8  # tokens of a response at most; the family with working is left out
WORKING = ("two-steps",)
RIDGE = 10.0  # weight of the penalty, in pairs
FADING = 0.95  # of what a pair counts, a step
NOISES = (3.0, 6.0)  # on the logit of p, as in the laboratory's contenders
BATCH = 32  # rows of a forward pass
LR = 1e-5
REWARD = "examples/fewshot/reward.py"
SCALARS = (
    "entropy", "top", "margin", "sum_squares", "spread", "entropy_next", "top_next", "margin_next",
    "sum_squares_next", "spread_next", "prompt_mean", "prompt_least", "prompt_last", "length",
)  # fmt: skip
# What an engine tells of its two likeliest tokens, one after the other, without a change of verl.
FROM_ENGINE = ("top", "top_next", "length")
# What is compared; the truth is 1 and chance 0.
PREDICTORS = (
    "value fit", "fit from the engine", "success fit", "entropy", "truth at the start", "noise 3", "noise 6",
)  # fmt: skip


def value(p):
    """Return p (1-p), the variance of one rollout's reward; p : array in [0, 1]."""
    return p * (1 - p)


def pair_value(successes):
    """Return an unbiased estimate of p (1-p) from PAIR rollouts: n/(n-1) q (1-q), q the share of successes.

    successes : int array in [0, PAIR]
    """
    share = successes / PAIR
    return PAIR / (PAIR - 1) * share * (1 - share)


class WithinFamilies:
    """Predicts a target within families: a ridge regression on scalars, both less their family's mean.

    The weights of earlier steps fade by FADING a step. Families share the coefficients.
    """

    def __init__(self):
        self._scalars, self._targets, self._families, self._ages = [], [], [], []

    def learn(self, scalars, targets, families):
        """Take the outcomes of a step: float (n, SCALARS), float (n,), int (n,)."""
        self._ages = [age + 1 for age in self._ages] + [0]
        for kept, new in zip(
            (self._scalars, self._targets, self._families), (scalars, targets, families), strict=True
        ):
            kept.append(np.asarray(new))

    def predict(self, scalars, families):
        """Return predictions relative to each family's mean, float (n,); zeros before the first outcome."""
        if not self._ages:
            return np.zeros(len(scalars))
        x, y, of, weight = self._outcomes()
        scale = x.std(axis=0) + 1e-9
        x, new = x / scale, scalars / scale
        x = x - family_means(x, of, weight)[of]
        y = y - family_means(y[:, None], of, weight)[of, 0]
        products = (x * weight[:, None]).T @ x + RIDGE * np.eye(x.shape[1])
        coefficients = np.linalg.solve(products, (x * weight[:, None]).T @ y)
        return (new - family_means(new, families, np.ones(len(new)))[families]) @ coefficients

    def means(self, count):
        """Return the faded mean target of each of `count` families, float (count,)."""
        if not self._ages:
            return np.zeros(count)
        _, y, of, weight = self._outcomes()
        return family_means(y[:, None], of, weight, count)[:, 0]

    def _outcomes(self):
        """Return the scalars, targets, families and faded weights of all outcomes so far."""
        weight = np.repeat(FADING ** np.array(self._ages, float), [len(part) for part in self._targets])
        return *(np.concatenate(part) for part in (self._scalars, self._targets, self._families)), weight


def family_means(columns, families, weights, count=None):
    """Return each family's weighted means: float, shape (families, columns), 0 for those without rows."""
    count = count or int(families.max()) + 1
    total = np.bincount(families, weights, count)
    sums = [np.bincount(families, weights * column, count) for column in columns.T]
    return np.stack(sums, axis=1) / np.maximum(total, 1e-12)[:, None]


def share_found(score, worth, families):
    """Return how much of what the truth finds is found by choosing one prompt of each family by `score`.

    It is (chosen - mean) / (best - mean) in true worth, summed over families: 0 for a choice at random, 1 for
    the best one, negative for a choice worse than chance (this project). Ties go to all alike.

    score, worth : float (n,); families : int (n,)
    """
    chosen = best = mean = 0.0
    for family in np.unique(families):
        mine = families == family
        tops = score[mine] == score[mine].max()
        chosen += worth[mine][tops].mean()
        best += worth[mine].max()
        mean += worth[mine].mean()
    return (chosen - mean) / (best - mean) if best > mean else np.nan


class Learner:
    """A pretrained causal model that looks at prompts, samples and learns, on a CPU in float32.

    folder : the model's, made by examples/fewshot/prepare.py; seed : int, of sampling
    """

    def __init__(self, folder, seed, lr=LR):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(seed)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.tokenizer.pad_token is None:  # SmolLM2's has none; which one it is changes nothing
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(0)
        self.pad = self.tokenizer.pad_token_id
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ends = json.loads((Path(folder) / "generation_config.json").read_text())["eos_token_id"]
        self.ends = torch.tensor(ends if isinstance(ends, list) else [ends])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.01)

    def tokens(self, text):
        """Return the tokens of a text, list of int."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def look(self, prompts, answers):
        """Return (p, scalars) of prompts: float (n,) and float (n, SCALARS).

        p is the exact probability of " answer" and the end of a line. The scalars are of the next token's
        distribution, and of the one after it where an answer begins with a space that is a token of its own.
        They don't depend on the answer otherwise.
        """
        torch, order = self.torch, np.argsort([len(prompt) for prompt in prompts], kind="stable")
        found = [None] * len(prompts)
        for first in range(0, len(order), BATCH):
            part = order[first : first + BATCH]
            encoded = [(self.tokens(prompts[i]), self.tokens(" " + answers[i])) for i in part]
            width = max(len(p) + len(a) for p, a in encoded)
            rows = torch.tensor([[*p, *a] + [self.pad] * (width - len(p) - len(a)) for p, a in encoded])
            with torch.no_grad():
                likely = self.model(rows, use_cache=False).logits.log_softmax(-1)
            for row, (i, (prompt, answer)) in enumerate(zip(part, encoded, strict=True)):
                last = len(prompt) - 1  # this place predicts the answer's first token
                said = likely[row, last : last + len(answer) + 1]
                written = said[:-1].gather(-1, torch.tensor(answer)[:, None]).sum()
                p = float((written + said[-1, self.ends].logsumexp(-1)).exp())
                space = self.tokenizer.decode(answer[:1]) == " "
                of_prompt = likely[row, :last].gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0]
                found[i] = (
                    p,
                    [
                        *_of_next(said[0]),
                        *_of_next(said[1 if space else 0]),
                        *(float(each) for each in (of_prompt.mean(), of_prompt.min(), of_prompt[-1])),
                        float(np.log(len(prompt))),
                    ],
                )
        return np.array([p for p, _ in found]), np.array([scalars for _, scalars in found])

    def sample(self, prompts):
        """Return the responses to prompts: list of lists of int, each with its end if it came."""
        torch, result = self.torch, []
        for first in range(0, len(prompts), BATCH):
            batch = self.tokenizer(
                prompts[first : first + BATCH], padding=True, add_special_tokens=False, return_tensors="pt"
            )
            with torch.no_grad():
                out = self.model.generate(
                    **batch,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=LENGTH,
                    eos_token_id=self.ends.tolist(),
                    pad_token_id=self.pad,
                )
            for row in out[:, batch["input_ids"].shape[1] :]:
                ended = torch.isin(row, self.ends).nonzero()
                result.append(row[: int(ended[0]) + 1 if len(ended) else LENGTH].tolist())
        return result

    def learn(self, prompts, responses, advantage):
        """Make one policy-gradient update, averaged over all tokens of the responses.

        advantage : float (n,); rows without advantage are counted, and not computed
        """
        torch = self.torch
        total = sum(map(len, responses))
        moves = [i for i in np.argsort([len(p) for p in prompts], kind="stable") if advantage[i]]
        self.optimizer.zero_grad()
        for first in range(0, len(moves), BATCH // 2):
            part = moves[first : first + BATCH // 2]
            encoded = [(self.tokens(prompts[i]), responses[i]) for i in part]
            longest = max(len(r) for _, r in encoded)
            width = max(len(p) for p, _ in encoded)
            rows, mask = [], []
            for prompt, response in encoded:
                before, after = width - len(prompt), longest - len(response)
                rows.append([self.pad] * before + prompt + response + [self.pad] * after)
                mask.append([0] * before + [1] * (len(prompt) + len(response)) + [0] * after)
            rows, mask = torch.tensor(rows), torch.tensor(mask)
            out = self.model(
                rows,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                logits_to_keep=longest + 1,
            )
            likely = out.logits[:, :-1].log_softmax(-1).gather(-1, rows[:, width:, None])[..., 0]
            weight = torch.as_tensor([advantage[i] for i in part], dtype=torch.float32)[:, None]
            (-(likely * mask[:, width:] * weight).sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def engine_scalars(scalars):
    """Return the columns FROM_ENGINE of scalars, the two probabilities as logarithms: float (n, 3)."""
    top, following, length = (scalars[:, SCALARS.index(name)] for name in FROM_ENGINE)
    return np.stack([np.log(top), np.log(following), length], axis=1)


def _of_next(likely):
    """Return five scalars of a distribution over tokens, given as log probabilities."""
    p = likely.exp()
    top = p.topk(2).values
    squares = p * p
    return [
        float(each)
        for each in (-(p * likely).sum(), top[0], top[0] - top[1], squares.sum(), (squares * (1 - p)).sum())
    ]


def read_families(path):
    """Return the prompts of a parquet file by family: dict of name -> list of (prompt, answer, source)."""
    import pyarrow.parquet as pq

    found = {}
    for row in pq.read_table(path).to_pylist():
        family = row["extra_info"]["family"]
        if family not in WORKING:
            pair = row["prompt"][0]["content"], row["reward_model"]["ground_truth"], row["data_source"]
            found.setdefault(family, []).append(pair)
    return found


class Trial:
    """Runs the experiment step by step.

    learner : Learner; first : a model that stays as it was at the start, or None to leave its part out
    families : see `read_families`; score : the reward function, called as verl calls it; seed : int
    """

    def __init__(self, learner, first, families, score, seed):
        self.learner, self.first, self.score = learner, first, score
        self.names = sorted(families)
        rng = np.random.default_rng([seed, 31])
        self.prompts = {
            name: [families[name][i] for i in rng.permutation(len(families[name]))] for name in self.names
        }
        self.most = min(map(len, self.prompts.values())) // POOL  # steps until a family's prompts run out
        self.rng, self.steps = np.random.default_rng([seed, 37]), 0
        self.of_value, self.of_success, self.from_engine = (WithinFamilies() for _ in range(3))

    def step(self):
        """Look, judge the predictions, train; return the step's figures, a JSON-ready dict."""
        began = time.perf_counter()
        begin = self.steps * POOL
        pool = [(f, row) for f, n in enumerate(self.names) for row in self.prompts[n][begin : begin + POOL]]
        families = np.array([family for family, _ in pool])
        prompts, answers, sources = zip(*(row for _, row in pool), strict=True)
        p, scalars = self.learner.look(prompts, answers)
        figures = {"step": self.steps, "p": float(p.mean()), "value": float(value(p).mean())}
        figures["found"] = self._judge(prompts, answers, p, scalars, families)
        figures["looked"] = time.perf_counter() - began
        right = self._train(prompts, answers, sources, scalars, families)
        self.steps += 1
        return figures | {"right": right, "seconds": time.perf_counter() - began}

    def _judge(self, prompts, answers, p, scalars, families):
        logit = np.log(np.clip(p, 1e-4, 1 - 1e-4)) - np.log1p(-np.clip(p, 1e-4, 1 - 1e-4))
        noisy = [value(1 / (1 + np.exp(-(logit + noise * self.rng.normal(size=p.size))))) for noise in NOISES]
        # A success rate is predicted as its family's mean and what the scalars add.
        success = self.of_success.means(len(self.names))[families]
        success = np.clip(success + self.of_success.predict(scalars, families), 0, 1)
        scores = {
            "value fit": self.of_value.predict(scalars, families),
            "fit from the engine": self.from_engine.predict(engine_scalars(scalars), families),
            "success fit": value(success),
            "entropy": scalars[:, SCALARS.index("entropy_next")],
            **{f"noise {noise:g}": score for noise, score in zip(NOISES, noisy, strict=True)},
        }
        if self.first is not None:
            scores["truth at the start"] = value(self.first.look(prompts, answers)[0])
        worth = value(p)
        return {name: float(share_found(score, worth, families)) for name, score in scores.items()}

    def _train(self, prompts, answers, sources, scalars, families):
        drawn = self.rng.choice(len(prompts), min(TRAINED, len(prompts)), replace=False)
        rows = np.repeat(drawn, PAIR)
        responses = self.learner.sample([prompts[i] for i in rows])
        texts = self.learner.tokenizer.batch_decode(responses, skip_special_tokens=True)
        rewards = np.array(
            [self.score(sources[i], t, answers[i])["score"] for i, t in zip(rows, texts, strict=True)]
        )
        pairs = rewards.reshape(-1, PAIR)
        # The mean of the others is the baseline, as RLOO has it.
        advantage = (pairs - pairs.mean(axis=1, keepdims=True)) * PAIR / (PAIR - 1)
        self.learner.learn([prompts[i] for i in rows], responses, advantage.ravel())
        worth = pair_value(pairs.sum(axis=1))
        self.of_value.learn(scalars[drawn], worth, families[drawn])
        self.from_engine.learn(engine_scalars(scalars[drawn]), worth, families[drawn])
        self.of_success.learn(scalars[drawn], pairs.mean(axis=1), families[drawn])
        return float(rewards.mean())


def table_rows(records, parts=3):
    """Return rows of a table: each predictor's share found, the mean over steps, with a standard error.

    The error is that of the seeds' means; of the steps where there is one seed. Predictors that no record has
    are left out.

    records : list of figures as `Trial.step` returns them, with their seed; of a step made twice, by a run
        that was interrupted, the last counts
    parts : into how many parts the steps are divided; the first step is left out, nothing is known before it
    """
    by_seed = {}
    for record in records:
        if record["step"] > 0:
            run = record["seed"], record.get("lr")
            by_seed.setdefault(run, {})[record["step"]] = record["found"]
    by_seed = {run: [found[step] for step in sorted(found)] for run, found in by_seed.items()}
    if len({rate for _, rate in by_seed}) > 1:
        raise ValueError("the file has runs of several learning rates; keep them in different files")
    rows = []
    for name in PREDICTORS:
        of_seeds = [[found.get(name, np.nan) for found in of_seed] for of_seed in by_seed.values()]
        if np.isnan(np.concatenate(of_seeds)).any():
            continue
        divided = [np.array_split(values, parts) for values in of_seeds]
        cells = []
        for each in [*zip(*divided, strict=True), of_seeds]:
            values = np.array([np.mean(part) for part in each]) if len(of_seeds) > 1 else np.array(each[0])
            error = f" ± {values.std(ddof=1) / np.sqrt(values.size):.2f}" if values.size > 1 else ""
            cells.append(f"{values.mean():.2f}{error}")
        rows.append([name, *cells])
    return rows


def run(arguments):
    """Make the steps that were asked for, and write a line for each."""
    import torch

    torch.set_num_threads(arguments.threads)
    folder, families = arguments.data / "model", read_families(arguments.data / "train.parquet")
    learner = Learner(folder, arguments.seed, arguments.lr)
    first = None if arguments.without_start else Learner(folder, arguments.seed)
    trial = Trial(learner, first, families, load_score(REWARD), arguments.seed)
    if arguments.steps > trial.most:
        raise ValueError(
            f"--steps={arguments.steps}: the prompts in {arguments.data} are enough for {trial.most}"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"seed": arguments.seed, "lr": arguments.lr}
    with arguments.out.open("a") as file:
        for _ in range(arguments.steps):
            figures = about | trial.step()
            print(json.dumps(figures), file=file, flush=True)
            found = ", ".join(f"{name} {each:.2f}" for name, each in figures["found"].items())
            print(f"{figures['step']}: p {figures['p']:.3f}; {found}; {figures['seconds']:.0f} s", flush=True)


def table(arguments):
    """Print the table of a file."""
    records = [json.loads(line) for line in arguments.file.read_text().splitlines()]
    header = ("found within families", "first third", "second third", "last third", "all steps")
    print(markdown_table(header, table_rows(records)))


def parser():
    """Return the argument parser."""
    top = argparse.ArgumentParser(
        prog="python -m cero.research.laboratory.prefill", description=__doc__.split("\n")[0]
    )
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser("run", help="train, and write a JSON line for each step")
    train.add_argument("--data", type=Path, required=True, help="folder made by examples/fewshot/prepare.py")
    train.add_argument("--steps", type=at_least_one, default=40, help="default: 40")
    train.add_argument("--seed", type=at_least_zero, default=0, help="of prompts and samples (default: 0)")
    train.add_argument("--lr", type=above_zero, default=LR, help="learning rate (default: %(default)s)")
    train.add_argument("--threads", type=at_least_one, default=2, help="of torch (default: 2)")
    train.add_argument(
        "--without-start", action="store_true", help="leave out the look by the model as it was at the start"
    )
    train.add_argument("--out", type=Path, default=Path("runs/prefill.jsonl"), help="default: %(default)s")
    train.set_defaults(run_command=run)
    show = commands.add_parser("table", help="print what was found, as Markdown")
    show.add_argument("file", type=Path, help="JSON lines")
    show.set_defaults(run_command=table)
    return top


def main(argv=None):
    """Run the command line; exit with 2 and one line on stderr for input that can't be used."""
    execute(parser().parse_args(argv), "prefill")


if __name__ == "__main__":
    main()
