"""Which questions are asked, and which responses to them are right? Rows of a parquet file as tensors."""

import numpy as np
import pyarrow.parquet as pq
import torch

from cero.estimators.shared import TEXT, slots_of_texts, slots_of_values, text_of


class Questions:
    """Holds the rows of a parquet file, tokenized and padded on the left.

    Parameters
    ----------
    path : parquet file of an example that lists the known forms of the right response
    tokenizer : of the model
    length : int, tokens of a response at most, its end included; longer forms can't be sampled

    Attributes
    ----------
    ids, mask : int tensors, shape (questions, tokens)
    texts, truths : lists of str, of the prompts and the answers; source : str
    labels : dict of "family", "kind" -> int array, shape (questions,)
    form_ids : int tensor, shape (forms, length), the known forms with their end, padded on the right
    form_row : int array, shape (forms,), ascending: the question of each
    """

    def __init__(self, path, tokenizer, length):
        rows = pq.read_table(path).to_pylist()
        asked = [
            tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=False)
            for r in rows
        ]
        encoded = tokenizer(asked, padding=True, add_special_tokens=False, return_tensors="pt")
        self.ids, self.mask = encoded["input_ids"], encoded["attention_mask"]
        self.texts = [text_of(row["prompt"]) for row in rows]
        self.truths = [row["reward_model"]["ground_truth"] for row in rows]
        self.source = rows[0]["data_source"]
        families = [row["extra_info"]["family"] for row in rows]
        kinds = [family.rpartition("-")[0] for family in families]
        self.labels = {
            name: np.unique(values, return_inverse=True)[1]
            for name, values in (("family", families), ("kind", kinds))
        }
        known = [(row, form) for row, entry in enumerate(rows) for form in entry["extra_info"]["forms"]]
        tokens = tokenizer([form for _, form in known], add_special_tokens=False)["input_ids"]
        forms = [(row, form) for (row, _), form in zip(known, tokens, strict=True) if len(form) < length]
        ids = np.full((len(forms), length), tokenizer.pad_token_id)
        for place, (_, form) in enumerate(forms):
            ids[place, : len(form) + 1] = [*form, tokenizer.eos_token_id]
        self.form_ids = torch.from_numpy(ids)
        self.form_row = np.array([row for row, _ in forms], np.int64)
        self._first = np.searchsorted(self.form_row, np.arange(len(rows) + 1))

    def __len__(self):
        return len(self.truths)

    def buckets(self, bucket):
        """Return the slots of all questions, int16 array, shape (questions, k); see `cero.estimators.shared`.

        bucket : TEXT, or a name in `labels`
        """
        if bucket == TEXT:
            return slots_of_texts(self.texts)
        return slots_of_values([str(label) for label in self.labels[bucket]])

    def forms_of(self, rows):
        """Return the places of the known forms of the questions `rows`, int array."""
        return np.concatenate([np.arange(self._first[row], self._first[row + 1]) for row in rows])

    def is_known(self, rows, responses):
        """Return whether each response is a known form of its question: bool, shape (responses,).

        rows : int, shape (responses,); responses : int tensor, shape (responses, length), padded
        """
        return np.array(
            [
                bool((self.form_ids[self._first[row] : self._first[row + 1]] == response).all(1).any())
                for row, response in zip(rows, responses, strict=True)
            ],
            bool,
        )
