"""Which prompts does a step choose from, and what becomes of those that it does not choose?

With cero.candidates=M a step is offered M x data.train_batch_size prompts. With cero.unchosen=drop those that
get no rollouts are gone for this pass over the data, and nothing has to be remembered. With
cero.unchosen=return they wait, and are offered again until they are chosen: a `Pass` keeps the order of the
queue, and bounds the number of prompts that a step may choose so that the queue is empty when the pass ends.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from cero.core.state import STATE_FILE, load_state
from cero.verl.resume import DATA_FILE, most_rows, prompts_read, resume_folder

WAITING_FILE = STATE_FILE.with_name("waiting.npz")  # beside the allocator's state, with cero.unchosen=return
FORMAT, VERSION = "cero-waiting", 1
COUNTS = ("steps", "fresh", "read", "rows", "batch")
ROW = "__cero_row__"  # column with the place of each row in the data set; taken out before workers see it


@dataclass(frozen=True)
class Offer:
    """Say what a step is to choose from.

    batches : int, batches to fetch from the loader
    again : int array, places in the data set of prompts that waited, to be offered again after those
    least, most : int, bounds on the number of prompts to choose; `most` is None where there is none
    """

    batches: int
    again: np.ndarray
    least: int
    most: int | None


class Dropping:
    """Offer one batch of the loader, as large as all candidates, and forget what is not chosen."""

    def offer(self):
        """Return the `Offer` of the next step."""
        return Offer(1, np.zeros(0, np.int64), 1, None)


class Pass:
    """Offer each prompt of a pass over the data until it is chosen, which is before the pass ends.

    A pass has rows // batch steps, and as many batches are read in it, as verl's passes have. A step is
    offered factor x batch prompts, or all that are left: first prompts that the loader has not given yet,
    then those that wait, the one offered longest ago first. The rule is this project's.

    Let S be the steps left, this one included, and R the prompts of the pass not chosen yet. The step chooses

        max(1, R - (S - 1) x capacity) ... min(R - (S - 1) x batch, batch x rollouts per prompt)

    prompts, capacity = batch x min(factor, rollouts per prompt): what one step can choose from, and give a
    rollout each. The upper bound leaves every later step a batch, and gives each chosen prompt a rollout of
    the step's budget. The lower one is what must be chosen now if all later steps choose as many as they can.
    With S x batch <= R <= S x capacity before a step the same holds after it, so that in the last step,
    S = 1, all that are left are chosen. Hence no prompt that is read waits longer than its pass, which is
    rows // batch - 1 steps.

    Parameters
    ----------
    rows : int, prompts in the data, at least factor x batch
    batch : int, verl's data.train_batch_size
    factor : int >= 1, cero.candidates
    rollouts : int >= 1, rollouts per prompt on average
    """

    def __init__(self, rows, batch, factor, rollouts):
        self.rows, self.batch, self.factor = rows, batch, factor
        self.capacity, self.budget = batch * min(factor, rollouts), batch * rollouts
        self.begin()

    def begin(self):
        """Begin a new pass."""
        self.steps = self.rows // self.batch  # left in this pass
        self.fresh = self.steps * self.batch  # prompts that the loader will still give
        self.read = 0  # prompts that it has given
        self.waiting = np.zeros(0, np.int64)  # places in the data set, the one offered longest ago first

    @property
    def left(self):
        """The prompts of the pass that were not chosen yet."""
        return self.fresh + self.waiting.size

    def offer(self):
        """Return the `Offer` of the next step, with which a new pass may begin."""
        if not self.steps:
            self.begin()
        size = min(self.factor * self.batch, self.left)
        batches = min(self.factor, self.fresh // self.batch)
        later = self.steps - 1
        return Offer(
            batches,
            self.waiting[: size - batches * self.batch],
            least=max(1, self.left - later * self.capacity),
            most=min(size, self.left - later * self.batch, self.budget),
        )

    def settle(self, offer, offered, chosen):
        """Take note of what was chosen.

        offer : what `offer` returned
        offered : int array, shape (n,), places in the data set of all that were offered, in that order
        chosen : int array, places in `offered`
        """
        self.fresh -= offer.batches * self.batch
        self.read += offer.batches * self.batch
        self.waiting = np.concatenate([self.waiting[offer.again.size :], np.delete(offered, chosen)])
        self.steps -= 1

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self):
        """Return the pass as plain data and an array, for `cero.core.state.save_state`."""
        counts = {name: int(getattr(self, name)) for name in COUNTS}
        return {"format": FORMAT, "version": VERSION, **counts, "table": {"row": self.waiting.copy()}}

    @staticmethod
    def check_state(state):
        """Raise ValueError unless `state` is one that `state_dict` returned."""
        row = state.get("table", {}).get("row")
        if (state.get("format"), state.get("version")) != (FORMAT, VERSION):
            raise ValueError(
                f"it is no queue of candidates of version {VERSION}; resume from an earlier checkpoint"
            )
        counted = all(type(state.get(name)) is int and state[name] >= 0 for name in COUNTS)
        if not counted or getattr(row, "dtype", None) != np.int64 or row.ndim != 1:
            raise ValueError("it lacks a part of the queue; the file is damaged, take an earlier checkpoint")
        if ((row < 0) | (row >= state["rows"])).any() or np.unique(row).size < row.size:
            raise ValueError("its queue names rows that are not in the data, or one twice; it is damaged")

    def load_state_dict(self, state):
        """Take up what `state_dict` returned; under other sizes the rest of the pass is counted anew.

        Raises
        ------
        ValueError
            If it is no such state; nothing has changed then.
        """
        self.check_state(state)
        self.go_on(state["read"], state["steps"], state["table"]["row"])

    def go_on(self, read, steps=None, waiting=()):
        """Go on in the middle of a pass.

        read : int, prompts that the loader has given in it
        steps : int, steps left of it; None: as many as its prompts fill
        waiting : int array, places in the data set; those beyond its end are left out, and so are those
            waiting last for which the steps left have no room
        """
        self.read = read
        self.waiting = np.array([row for row in np.asarray(waiting).tolist() if row < self.rows], np.int64)
        self.fresh = max(0, self.rows - read) // self.batch * self.batch
        most = self.left // self.batch
        self.steps = most if steps is None else min(max(steps, -(-self.left // self.capacity)), most)
        if not self.steps:  # the loader has less than a batch for the rest, and begins anew, too
            self.fresh, self.waiting = 0, self.waiting[:0]
        beyond = self.left - self.steps * self.capacity
        if beyond > 0:  # less than a batch of them
            self.waiting = self.waiting[:-beyond]


class Numbered:
    """Have each row of a data set say its place in it, in the column `ROW`."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, place):
        # A tensor, because verl's loader stacks these, and makes objects of numbers.
        return {**self.dataset[place], ROW: torch.tensor(int(place))}

    def __getattr__(self, name):
        # What the data set's class has beside this; nothing special, and nothing while it is unpickled.
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


def numbered(loader):
    """Return a loader like `loader` (verl's, not used yet), each of whose rows says its place."""
    return type(loader)(
        Numbered(loader.dataset),
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        num_workers=loader.num_workers,
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
    )


@contextmanager
def batches_of(config, factor):
    """Have verl make loader, steps of a pass and horizon for batches `factor` times as large, within it.

    verl's `_init_dataloader` computes all three from data.train_batch_size. What trains has its own size back
    afterwards.
    """
    before = config.data.train_batch_size
    config.data.train_batch_size = before * factor
    try:
        yield
    finally:
        config.data.train_batch_size = before


def check_size(config, settings, rows):
    """Raise ValueError, naming key, value and remedy, if a step has more candidates than there are prompts.

    rows : int, prompts in the data
    """
    size = settings.candidates * config.data.train_batch_size
    if settings.candidates > 1 and size > rows:
        raise ValueError(
            f"cero.candidates={settings.candidates} x data.train_batch_size={config.data.train_batch_size} "
            f"are {size} prompts a step, and data.train_files={config.data.train_files} has {rows}; set "
            f"cero.candidates to {max(1, rows // config.data.train_batch_size)} or less"
        )


def check_candidates(config, settings):
    """Raise ValueError, as `check_size` and `resume_pass` do, for what can be seen before the data is loaded.

    Data that is not in Parquet files at hand is not looked at, nor is a pass that is not resumed.
    """
    rows = most_rows(config) if settings.candidates > 1 else None
    if rows is None:
        return
    check_size(config, settings, rows)
    if settings.returns:
        resume_pass(config, make_offers(config, settings, rows))


def make_offers(config, settings, rows):
    """Return the `Dropping` or `Pass` of a run over `rows` prompts; None if its steps do not choose."""
    if settings.candidates == 1:
        return None
    if not settings.returns:
        return Dropping()
    return Pass(rows, config.data.train_batch_size, settings.candidates, settings.rollouts_per_prompt)


def resume_pass(config, current):
    """Have `current`, a `Pass`, go on where the checkpoint that is resumed left it.

    Raises
    ------
    ValueError
        If the checkpoint's queue is damaged; it names the file.
    """
    folder = resume_folder(config)
    if folder is None or not (folder / DATA_FILE).is_file():
        return  # verl's loader begins a new pass, too
    path = folder / WAITING_FILE
    if not path.is_file():  # of a run without cero.unchosen=return
        current.go_on(prompts_read(folder))
        return
    try:
        current.load_state_dict(load_state(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
