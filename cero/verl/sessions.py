"""Which rows of verl's queue belong to one rollout?

verl calls a rollout a session. A session has one row for each output of its agent loop, with the key
"<uid>_<session>_<output>", and all its rows have the reward of the last one. Rows of validation and padding
have keys of their own kind.
"""

from dataclasses import dataclass

import numpy as np


def final_rows(keys):
    """Find the last row of each session.

    keys : list of str, "<uid>_<session>_<output>"

    Returns
    -------
    rows : int array, shape (s,), the row of each session's last output
    session_of_row : int array, shape (len(keys),), the session of each row
    names : list of str, length s, "<uid>_<session>"
    """
    place, rows, outputs, sessions = {}, [], [], []
    for row, key in enumerate(keys):
        name, _, output = key.rpartition("_")
        output = int(output)
        session = place.setdefault(name, len(rows))
        if session == len(rows):
            rows.append(row)
            outputs.append(output)
        elif outputs[session] < output:
            rows[session], outputs[session] = row, output
        sessions.append(session)
    return np.array(rows, dtype=np.int64), np.array(sessions, dtype=np.int64), list(place)


@dataclass
class Sessions:
    """Hold the s finished sessions of a step, in an order that does not depend on which came back first.

    rows : int array, shape (s,): the row of each session's last output, which has its reward
    session_of_row : int array, shape (r,): the session of each row
    groups, numbers : int arrays, shape (s,): each session's prompt (its place in the step), and its number
        among that prompt's sessions
    names : list of str, length s, "<uid>_<session>"
    """

    rows: np.ndarray
    session_of_row: np.ndarray
    groups: np.ndarray
    numbers: np.ndarray
    names: list

    @classmethod
    def of_keys(cls, keys, group_of_uid):
        """Return the `Sessions` of rows with these keys.

        keys : list of str, none of them padding
        group_of_uid : dict of uid -> place of the prompt in the step
        """
        rows, session_of_row, names = final_rows(keys)
        parts = [name.rpartition("_") for name in names]
        groups = np.array([group_of_uid[uid] for uid, _, _ in parts], dtype=np.int64)
        numbers = np.array([int(number) for _, _, number in parts], dtype=np.int64)
        order = np.lexsort((numbers, groups))
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        names = [names[session] for session in order]
        return cls(rows[order], place[session_of_row], groups[order], numbers[order], names)

    @property
    def count(self):
        """Number of sessions s."""
        return self.rows.size

    def per_session(self, of_rows):
        """Return the sums of `of_rows` (numbers, shape (r,)) over each session's rows: floats, shape (s,)."""
        return np.bincount(self.session_of_row, of_rows, self.rows.size)
