"""How does one run of the laboratory go? One task, one contender and one seed give a record."""

import math
import time

import numpy as np
import torch

from cero.allocators.rounds import play
from cero.estimators.advantage import Groups, advantages, known_so_far
from cero.estimators.baseline import OptimalBaseline
from cero.estimators.keep import kept
from cero.research.laboratory.policy import Policy
from cero.research.laboratory.questions import Questions
from cero.research.oracle import VALUES, Oracle

POINTS = 10  # validations of a run, beside the one before training


class Laboratory:
    """Holds a prepared task, for runs of any contender and seed.

    Parameters
    ----------
    folder : the prepared task, with train.parquet, test.parquet, train_sample.parquet and model/
    score : its reward function
    length : int, tokens of a response at most
    budget : int, rollouts of a run; the same for all, so fewer rollouts a step are more steps
    """

    def __init__(self, folder, score, length, budget):
        self.folder, self.score, self.length, self.budget = folder, score, length, budget
        tokenizer = self.policy(0, 0.0).tokenizer
        self.train, self.test, self.train_sample = (
            Questions(folder / f"{split}.parquet", tokenizer, length)
            for split in ("train", "test", "train_sample")
        )

    def policy(self, seed, lr, kind=Policy):
        """Return the task's warm start as a policy of this kind, a class."""
        return kind(self.folder / "model", self.score, self.length, lr, seed * 7919 + 13)

    def run(self, contender, seed):
        """Train once; return the record of the run, a JSON-ready dict.

        spent, accuracy, train_accuracy : lists, rollouts at each validation, held-out accuracy there, and
            accuracy on the sample of train questions
        known : share of the right rollouts that were of a known form, which is all that an oracle knows of
        found : of an oracle or a look, the mean of p (1-p) over the step's prompts, over the rollouts bought,
            and over as many prompts of greatest p (1-p); means over steps
        families : mean number of families among a step's rollouts
        """
        started = time.perf_counter()
        run = Run(self, contender, seed, self.policy(seed, contender.lr))
        spent, accuracy, of_train = [0], [run.validate(self.test)], [run.validate(self.train_sample)]
        while run.goes_on:
            run.step()
            if run.spent >= self.budget * len(spent) / POINTS:
                spent.append(run.spent)
                accuracy.append(run.validate(self.test))
                of_train.append(run.validate(self.train_sample))
        if run.spent > spent[-1]:  # a few rollouts of the budget are left, too few for a step
            spent.append(run.spent)
            accuracy.append(run.validate(self.test))
            of_train.append(run.validate(self.train_sample))
        return {
            "contender": contender.label,
            "written": contender.written,
            "seed": seed,
            "budget": self.budget,
            "spent": spent,
            "accuracy": [round(each, 4) for each in accuracy],
            "train_accuracy": [round(each, 4) for each in of_train],
            **run.figures(),
            "seconds": round(time.perf_counter() - started, 1),
        }


class Run:
    """A run under way."""

    def __init__(self, laboratory, contender, seed, policy):
        self.train, self.contender, self.policy = laboratory.train, contender, policy
        self.drawn = contender.candidates or contender.batch  # prompts of a step
        if contender.candidates == 0:
            self.drawn = len(self.train)
        if self.drawn > len(self.train):
            raise ValueError(
                f"contender {contender.label!r}: a step draws {self.drawn} prompts, "
                f"but the task has {len(self.train)}"
            )
        bucket = contender.bucket
        self.optimal = OptimalBaseline(bucket=bucket) if contender.baseline == "optimal" else None
        self.buckets = None if bucket is None else self.train.buckets(bucket)
        epochs = max(1, math.ceil(laboratory.budget / (len(self.train) * contender.n)))
        self.allocator = contender.method.make(
            rollouts_per_prompt=contender.n, epochs=epochs, seed=seed, total_budget=laboratory.budget
        )
        self.success, self.seen = np.full((2, len(self.train)), np.nan)
        self.ids = np.arange(len(self.train), dtype=np.uint64)
        self.oracle = isinstance(self.allocator, Oracle)
        if self.oracle:
            known = self.seen if contender.look else self.success
            self.allocator.truth = lambda ids: known[ids.astype(np.int64)]
            self.allocator.labels = {
                name: lambda ids, labels=labels: labels[ids.astype(np.int64)]
                for name, labels in self.train.labels.items()
            }
        self.order, self.chooser = np.random.default_rng([seed, 23]), np.random.default_rng([seed, 29])
        self.validating = torch.Generator().manual_seed(seed)
        self.to_come = np.zeros(0, np.int64)
        self.steps = self.right = self.known = 0
        self.families, self.found = [], []

    @property
    def spent(self):
        return int(self.allocator.ledger.spent)

    @property
    def goes_on(self):
        least = 1 if self.allocator.sequential else max(self.allocator.n_min, 1)
        return self.allocator.ledger.left >= self.contender.batch * least

    def validate(self, questions):
        return self.policy.accuracy(questions, self.validating)

    def step(self):
        contender, train = self.contender, self.train
        rows = self._next_rows()
        ids = self.ids[rows]
        if self.oracle and (contender.candidates != 0 or self.steps % contender.refresh == 0):
            self.success[rows] = self.policy.success(train, rows)
            if contender.look:  # then success is for the record only
                self.seen[rows] = self.policy.entropy(train, rows, contender.look)
        if self.buckets is None:
            buckets, history = None, self.allocator.success_mean(ids)
        else:
            buckets = self.buckets[rows]
            history = self.allocator.success_mean_or(ids, self.optimal.expected_success(buckets))
        budget = min(contender.step_budget, self.allocator.ledger.left) if contender.exact else None
        step, drawn = self.allocator.begin(ids, budget), []

        def sample(prompts, rollouts):
            group = np.repeat(prompts, rollouts)
            responses, rewards, weights = self.policy.sample(train, rows[group])
            drawn.append((group, rewards, np.repeat(step.rounds[prompts] - 1, rollouts), weights, responses))
            return np.bincount(group, rewards, rows.size)[prompts], rollouts

        play(step, sample)
        group, rewards, rounds, weights = (np.concatenate([part[i] for part in drawn]) for i in range(4))
        responses = torch.cat([part[4] for part in drawn])
        trials = np.bincount(group, minlength=rows.size)
        self.allocator.settle(step, np.bincount(group, rewards, rows.size), trials)
        self._take_note(rows, trials, group, rewards, responses)
        self._learn(ids, rows, buckets, history, group, rewards, rounds, weights, responses)
        self.steps += 1

    def _next_rows(self):
        if self.drawn == len(self.train):
            return np.arange(self.drawn)
        if self.to_come.size < self.drawn:  # as verl's loader: what fills no whole step sits the epoch out
            self.to_come = self.order.permutation(len(self.train))
        rows, self.to_come = self.to_come[: self.drawn], self.to_come[self.drawn :]
        return rows

    def _learn(self, ids, rows, buckets, history, group, rewards, rounds, weights, responses):
        contender, method = self.contender, self.contender.method
        trials, successes = known_so_far(rewards, group, rounds if method.estimator == "posterior" else None)
        stays = np.arange(group.size)
        if method.keep != "all":
            lengths = self.policy.said(responses).sum(1).numpy()
            chosen = {"ratio": method.ratio, "count": method.count}
            stays = np.flatnonzero(kept(method.keep, rewards, group, lengths, self.chooser, **chosen))
        baseline = None
        if self.optimal is not None:
            baseline = self.optimal.of_step(
                ids, group[stays], rewards[stays], weights[stays], rounds[stays], buckets
            )
        advantage = advantages(
            method.estimator,
            Groups(rewards[stays], group[stays], rows.size, trials[stays], successes[stays], baseline),
            history,
            prompt_weight=method.weight,
            rollouts_per_prompt=contender.n,
            history=method.history,
        )
        self.policy.learn(self.train, rows[group[stays]], responses[stays], advantage)

    def _take_note(self, rows, trials, group, rewards, responses):
        right = np.flatnonzero(rewards)
        self.right += right.size
        self.known += int(self.train.is_known(rows[group[right]], responses[right]).sum())
        self.families.append(np.unique(self.train.labels["family"][rows[group]]).size)
        if self.oracle:
            value = VALUES["variance"](self.success[rows])
            best = np.sort(value)[::-1][: self.contender.batch]
            self.found.append((value.mean(), (value * trials).sum() / trials.sum(), best.mean()))

    def figures(self):
        figures = {
            "known": round(self.known / max(self.right, 1), 4),
            "families": round(float(np.mean(self.families)), 1),
        }
        if self.found:
            means = np.mean(self.found, axis=0).round(4).tolist()
            figures["found"] = dict(zip(("offered", "bought", "best"), means, strict=True))
        return figures
