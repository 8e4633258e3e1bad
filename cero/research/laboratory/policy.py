"""What does the tiny model say, how likely is it right, and how does it learn?"""

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, utils

from cero.estimators.baseline import score_weights

utils.logging.disable_progress_bar()

ROWS = 256  # sequences in a forward pass of teacher forcing


class Policy:
    """Samples from the tiny model, knows its success probabilities, and learns.

    Parameters
    ----------
    folder : the model's, with its tokenizer
    score : reward function, called as verl calls it
    length : int, tokens of a response at most
    lr : float, AdamW's learning rate
    seed : int, of the sampling in training
    """

    def __init__(self, folder, score, length, lr, seed):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.pad, self.end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        self.score, self.length = score, length
        self.draw = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.01)

    @torch.no_grad()
    def sample(self, questions, rows, draw=None):
        """Return (responses, rewards, weights) to questions[rows]: padded token ids, and float arrays.

        draw : torch.Generator; None: the one of training
        weights : of `cero.estimators.baseline.score_weights`
        """
        rows = torch.as_tensor(rows)
        ids, mask = questions.ids[rows], questions.mask[rows]
        place = (mask.cumsum(-1) - 1).clamp(min=0)
        responses = torch.full((len(rows), self.length), self.pad)
        over, log_probs = torch.zeros(len(rows), dtype=torch.bool), torch.zeros(len(rows), self.length)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=place, use_cache=True, logits_to_keep=1
        )
        place = place[:, -1:]
        for at in range(self.length):
            likely = torch.softmax(out.logits[:, -1], -1)
            token = torch.multinomial(likely, 1, generator=draw or self.draw)[:, 0]
            log_probs[:, at] = likely.gather(1, token[:, None])[:, 0].log()
            responses[:, at] = token = torch.where(over, self.pad, token)
            over |= token == self.end
            if over.all() or at == self.length - 1:
                break
            mask, place = torch.cat([mask, mask.new_ones(len(rows), 1)], 1), place + 1
            out = self.model(
                input_ids=token[:, None], attention_mask=mask, position_ids=place,
                past_key_values=out.past_key_values, use_cache=True,
            )  # fmt: skip
        texts = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        return responses, self.rewarded(questions, rows, texts), self.weighed(log_probs, responses)

    def rewarded(self, questions, rows, texts):
        """Return the reward of each text as a response to questions[rows]: float array."""
        scored = (
            self.score(questions.source, text, questions.truths[row])
            for text, row in zip(texts, rows.tolist(), strict=True)
        )
        return np.array([each["score"] for each in scored])

    def weighed(self, log_probs, responses):
        """Return `score_weights` of responses, from their tokens' log probabilities: float array."""
        return score_weights(log_probs.numpy(), self.said(responses)[:, : log_probs.shape[1]].numpy())

    @torch.no_grad()
    def entropy(self, questions, rows, tokens):
        """Return how unsure the model is of its response to questions[rows]: float array (n,), in [0, 1].

        It is the entropy of a token's distribution, as a share of the greatest there is, averaged over the
        first `tokens` tokens of the likeliest continuation, or up to its end.
        """
        rows = torch.as_tensor(rows)
        ids, mask = questions.ids[rows], questions.mask[rows]
        total, count = torch.zeros(len(rows)), torch.zeros(len(rows))
        over = torch.zeros(len(rows), dtype=torch.bool)
        for _ in range(tokens):
            place = (mask.cumsum(-1) - 1).clamp(min=0)
            out = self.model(input_ids=ids, attention_mask=mask, position_ids=place, logits_to_keep=1)
            likely = torch.log_softmax(out.logits[:, -1], -1)
            total += torch.where(over, 0, -(likely.exp() * likely).sum(-1))
            count += ~over
            token = likely.argmax(-1)
            over |= token == self.end
            if over.all():
                break
            ids = torch.cat([ids, token[:, None]], 1)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        return (total / count / np.log(likely.shape[-1])).numpy()

    def said(self, responses):
        """Return which tokens count, those up to the end of the response: bool, shape of `responses`."""
        end = (responses == self.end).long()
        return (end.cumsum(1) - end == 0) & (responses != self.pad)

    def log_probs(self, questions, rows, responses):
        """Return the log probability of each token of the responses, 0 after their end: shape (r, tokens).

        Tokens at which all responses are over are left out.
        """
        rows, said = torch.as_tensor(rows), self.said(responses)
        longest = int(said.sum(1).max())
        responses, said = responses[:, :longest], said[:, :longest]
        ids, mask = questions.ids[rows], questions.mask[rows]
        padding = int((1 - mask).sum(1).min())  # what all prompts are padded by
        ids = torch.cat([ids[:, padding:], responses], 1)
        mask = torch.cat([mask[:, padding:], said.long()], 1)
        place = (mask.cumsum(-1) - 1).clamp(min=0)
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=place, logits_to_keep=longest + 1)
        return torch.log_softmax(out.logits[:, :-1], -1).gather(-1, responses[..., None])[..., 0] * said

    @torch.no_grad()
    def success(self, questions, rows):
        """Return the probability of the known forms of the right response to questions[rows].

        It is exact, by teacher forcing, and a lower bound of the success probability: the reward function
        accepts further forms (`Questions.is_known` tells which samples are of these).

        rows : int, shape (n,), distinct

        Returns
        -------
        float array, shape (n,), in [0, 1]
        """
        forms = questions.forms_of(rows)
        lengths = self.said(questions.form_ids[forms]).sum(1).numpy()
        probability = np.zeros(forms.size)
        for part in np.array_split(np.argsort(lengths, kind="stable"), -(-forms.size // ROWS)):
            mine = forms[part]
            likely = self.log_probs(questions, questions.form_row[mine], questions.form_ids[mine])
            probability[part] = likely.sum(1).exp().numpy()
        return np.bincount(questions.form_row[forms], probability, len(questions))[rows]

    def accuracy(self, questions, draw, samples=2):
        """Return the mean success probability of all questions, a float.

        It is exact for the known forms of the right response; the rest is the share of `samples` samples a
        question that are right in another form. `draw` is the samples' torch.Generator.
        """
        every = np.tile(np.arange(len(questions)), samples)
        responses, rewards, _ = self.sample(questions, every, draw)
        other = np.flatnonzero(rewards)
        unknown = ~questions.is_known(every[other], responses[other])
        known = self.success(questions, np.arange(len(questions)))
        return float(known.mean() + rewards[other][unknown].sum() / every.size)

    def learn(self, questions, rows, responses, advantage):
        """Make one policy-gradient update, on policy, averaged over all tokens given.

        rows, advantage : shape (r,); responses : int tensor, shape (r, length)
        """
        total = self.said(responses).sum()
        moves = np.flatnonzero(np.abs(advantage) > 1e-9)
        if not moves.size:
            return
        likely = self.log_probs(questions, rows[moves], responses[moves])
        weight = torch.as_tensor(advantage[moves], dtype=torch.float32)[:, None]
        self.optimizer.zero_grad()
        (-(likely * weight).sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
