"""Do verl and the laboratory do the same? A run through verl, gone through again with its own samples.

Every step of the run is made anew: the allocator is asked, the run's responses are taken as the policy's, and
the update is made. Then three things must hold. The allocator gives what it gave there. The weights become
those that verl saved. And the responses are such as this policy would give.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from cero.analysis.runlog import FILE_NAME, read_log
from cero.research.laboratory.policy import Policy
from cero.research.laboratory.training import Run
from cero.verl.identity import row_prompt_id

WEIGHTS = "actor/huggingface/model.safetensors"  # in a checkpoint with save_contents=[hf_model]


@dataclass
class Replayed:
    """What came out.

    weights : list of (step, moved, apart), one for each checkpoint: how far training had moved verl's weights
        from the warm start, and how far the laboratory's are from verl's; Euclidean distances
    steps, rollouts : int
    surprise : how many more rollouts were right than expected, in standard deviations
        Expected is the policy's exact probability of the known forms of the right response, before each step.
    ended : str, why it ends before the run does: a response that can't be read back; "" if it does not
    pairs, alike : int, pairs of rollouts of one prompt in one step; and by how many standard deviations both
        are right, or both wrong, more often than independent ones
    """

    weights: list
    steps: int
    rollouts: int
    surprise: float
    pairs: int
    alike: float
    ended: str


def replay(laboratory, contender, seed, folder):
    """Go through a run again.

    Parameters
    ----------
    laboratory : `Laboratory` of the run's task
    contender : `LabContender` that stands for the run's settings; one that decides before it samples
    seed : int, the run's allocator.seed
    folder : Path, the run's trainer.default_local_dir
        Its responses are in rollouts/ (trainer.rollout_data_dir), and some checkpoint has WEIGHTS.

    Returns
    -------
    Replayed

    Raises
    ------
    FileNotFoundError
        If the run left no log, responses or weights.
    ValueError
        If the allocator gives other numbers of rollouts than in the run, or a response before the first
        checkpoint can't be read back: special tokens within it are not in its text.
    """
    return _Again(laboratory, contender, seed, Path(folder)).replay()


class _Unreadable(ValueError):
    """A response whose text does not say which tokens were sampled."""


class _RecordedPolicy(Policy):
    """A policy whose samples are given: `responses` maps a question to its responses in the step in hand."""

    responses: dict

    def sample(self, questions, rows, draw=None):
        asked = Counter(rows.tolist())
        differ = [row for row, given in self.responses.items() if asked[row] != len(given)]
        if differ:
            first, given = differ[0], len(self.responses[differ[0]])
            raise ValueError(
                f"the allocator gives the question {questions.texts[first]!r} {asked[first]} rollouts, and "
                f"gave it {given} in the run ({len(differ)} questions of the step differ); is this the run's "
                "contender and its seed?"
            )
        texts = [self.responses[row].pop(0) for row in rows.tolist()]
        encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        responses = torch.full((len(texts), self.length), self.pad)
        for at, (text, tokens) in enumerate(zip(texts, encoded, strict=True)):
            if self.tokenizer.decode(tokens) != text or len(tokens) > self.length:
                raise _Unreadable(
                    f"the response {text!r} can't be read back into the tokens that were sampled"
                )
            responses[at, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
            responses[at, len(tokens) : len(tokens) + 1] = self.end
        with torch.no_grad():
            likely = self.log_probs(questions, rows, responses)
        return responses, self.rewarded(questions, rows, texts), self.weighed(likely, responses)


class _Again(Run):
    """A run of the laboratory whose prompts and samples are those of a run through verl."""

    def __init__(self, laboratory, contender, seed, folder):
        policy = laboratory.policy(seed, contender.lr, _RecordedPolicy)
        super().__init__(laboratory, contender, seed, policy)
        if self.allocator.sequential:
            raise ValueError(
                f"{contender.label} samples in rounds, and the run's log does not tell them apart"
            )
        self.folder = folder
        entries = pq.read_table(laboratory.folder / "train.parquet").to_pylist()
        named = [
            row_prompt_id(each["data_source"], each["prompt"], each["reward_model"]["ground_truth"])
            for each in entries
        ]
        self.ids = np.array(named, np.uint64)
        self.row_of_id = {each: row for row, each in enumerate(named)}
        asked = [
            policy.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
            for ids, mask in zip(self.train.ids, self.train.mask, strict=True)
        ]
        self.row_of_question = {
            key: row for row, key in enumerate(zip(asked, self.train.truths, strict=True))
        }
        if len(self.row_of_question) < len(self.train):
            raise ValueError("some of the task's questions occur twice, so responses can't be told apart")
        self.start = self._weights()
        self.expected = self.variance = self.right_of_known = 0.0
        self.together = self.together_variance = 0.0
        self.pairs = 0

    def replay(self):
        weights, ended, spent = [], "", 0
        for line in read_log(self.folder / "cero" / FILE_NAME):
            if line["kind"] != "step":
                continue
            self._take_up(line)
            try:
                self.step()
            except ValueError as error:
                message = f"{self.folder}, step {line['step']}: {error}"
                if not isinstance(error, _Unreadable) or not weights:
                    raise ValueError(message) from error
                ended = message
                break
            spent = self.spent
            saved = self.folder / f"global_step_{line['step']}" / WEIGHTS
            if saved.is_file():
                verls = load_file(saved)
                weights.append((line["step"], _apart(verls, self.start), _apart(verls, self._weights())))
        if not weights:
            raise FileNotFoundError(
                f"{self.folder} has no global_step_*/{WEIGHTS}; train it with trainer.save_freq and "
                "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]"
            )
        return Replayed(
            weights,
            self.steps,
            spent,
            (self.right_of_known - self.expected) / max(np.sqrt(self.variance), 1e-9),
            self.pairs,
            self.together / max(np.sqrt(self.together_variance), 1e-9),
            ended,
        )

    def _take_up(self, line):
        """Make the step's prompts and responses the next ones; `line` is its record in the log."""
        try:
            self.rows = np.array([self.row_of_id[int(each, 16)] for each in line["prompts"]])
        except KeyError as error:
            raise ValueError(
                f"{self.folder} has prompts that the task has not; name the run's task"
            ) from error
        self.tokens = line["metrics"]["cero/tokens/sampled"]
        path = self.folder / "rollouts" / f"{line['step']}.jsonl"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is not there; train with trainer.rollout_data_dir=<run>/rollouts"
            )
        self.policy.responses = {row: [] for row in self.rows.tolist()}
        for text in path.read_text().splitlines():
            said = json.loads(text)
            row = self.row_of_question.get((said["input"], said["gts"]))
            if row not in self.policy.responses:
                raise ValueError(
                    f"{path} has a response to {said['input']!r}, which is no prompt of the step"
                )
            self.policy.responses[row].append(said["output"])

    def _next_rows(self):
        return self.rows

    def _take_note(self, rows, trials, group, rewards, responses):
        read = int(self.policy.said(responses).sum())
        if read != self.tokens:
            raise _Unreadable(
                f"the responses had {self.tokens:.0f} tokens, and their texts have {read}; a special token "
                "within a response is not in its text"
            )
        p = self.policy.success(self.train, rows)
        known = self.train.is_known(rows[group], responses).astype(float)
        self.right_of_known += known.sum()
        self.expected += p[group].sum()
        self.variance += (p * (1 - p))[group].sum()
        off = known - p[group]
        total, squares = (np.bincount(group, each, rows.size) for each in (off, off**2))
        pairs = trials * (trials - 1) // 2
        self.pairs += int(pairs.sum())
        self.together += ((total**2 - squares) / 2).sum()  # the products of both of each pair
        self.together_variance += (pairs * (p * (1 - p)) ** 2).sum()

    def _weights(self):
        return {name: each.detach().clone() for name, each in self.policy.model.named_parameters()}


def _apart(some, others):
    """Return the Euclidean distance of two sets of weights, over the names that both have."""
    names = some.keys() & others.keys()
    return float(sum((some[name].float() - others[name].float()).square().sum() for name in names) ** 0.5)
