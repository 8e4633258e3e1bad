"""How does the capability get into the model? By imitating a mixture of right answers and slips.

First both procedures appear equally often, so that the model learns to carry out either. Then, in each
family, the right one appears with that family's share and the slip has the rest. That is habit: the model now
follows the right procedure about as often as it was shown at the end. It is still able to do so where it
hardly ever does. The capability is latent, and reinforcement has to bring it out.

With `execution` above 0, part of the draws of the second phase show the right procedure, but nothing is
learned from its first words, up to where it parts from the slip. So the habit stays as it is, and how to
carry out the procedure, once begun, is not forgotten however rare it is. Then reinforcement can reach more.

The held-out questions are in the mixture as well; they are held out from the reinforcement. Twenty questions
a family would not teach a model this small to calculate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from items import Item
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

IGNORED = -100  # label of a token that is not trained on
SLIP, RIGHT, EXECUTION = range(3)
EVEN = 0.65  # leading part of the draws in which both procedures are equally frequent


class Mixture(torch.utils.data.Dataset):
    """Holds `size` (question, response) pairs in the order of training, drawn with replacement when made.

    A row holds input_ids, attention_mask and labels, each int64 of shape (length,), padded on the right to
    the longest. Only the response and <eos> are trained on; of an execution, only what follows the parting
    from the slip.

    execution : share of the second phase's draws that are executions of the right procedure, in [0, 1)
    """

    def __init__(
        self,
        items: list[Item],
        tokenizer: PreTrainedTokenizerFast,
        size: int,
        seed: int,
        execution: float = 0.0,
    ):
        rng = np.random.default_rng([seed, 3])
        rows = {}
        for i, item in enumerate(items):
            slip, right = (self._encode(tokenizer, item.question, response) for response in item.responses)
            parting = next((at for at, (x, y) in enumerate(zip(slip[0], right[0], strict=False)) if x != y))
            rows |= {(i, SLIP): slip, (i, RIGHT): right, (i, EXECUTION): (right[0], parting + 1)}
        length = max(len(tokens) for tokens, _ in rows.values())
        self.rows = {key: self._pad(*row, length, tokenizer.pad_token_id) for key, row in rows.items()}
        share = np.array([item.share for item in items])
        self.question = rng.integers(len(items), size=size)
        known = np.arange(size) < EVEN * size
        self.kind = np.where(rng.random(size) < np.where(known, 0.5, share[self.question]), RIGHT, SLIP)
        if execution:
            self.kind[~known & (rng.random(size) < execution)] = EXECUTION

    @staticmethod
    def _encode(tokenizer: PreTrainedTokenizerFast, question: str, answer: str) -> tuple[list[int], int]:
        """Return the token ids of the whole conversation, and how many of them are the prompt."""
        user = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, return_dict=False)
        answered = [*user, {"role": "assistant", "content": answer}]
        return tokenizer.apply_chat_template(answered, return_dict=False), len(prompt)

    @staticmethod
    def _pad(tokens: list[int], prompt: int, length: int, pad: int) -> dict[str, torch.Tensor]:
        ids = torch.full((length,), pad)
        ids[: len(tokens)] = torch.tensor(tokens)
        place = torch.arange(length)
        labels = torch.where((place >= prompt) & (place < len(tokens)), ids, IGNORED)
        return {"input_ids": ids, "attention_mask": (place < len(tokens)).long(), "labels": labels}

    def __len__(self) -> int:
        return len(self.question)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return self.rows[int(self.question[i]), int(self.kind[i])]


def train(
    model: LlamaForCausalLM, data: Mixture, workdir: Path, batch: int, learning_rate: float, seed: int
) -> float:
    """Train on `data` once, with AdamW and a cosine schedule. Return the mean loss per token, in nats."""
    arguments = TrainingArguments(
        output_dir=str(workdir),
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        train_sampling_strategy="sequential",  # the order of the draws matters
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        adam_beta2=0.98,
        weight_decay=0.01,
        max_grad_norm=1.0,
        seed=seed,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Trainer(model=model, args=arguments, train_dataset=data).train().training_loss
