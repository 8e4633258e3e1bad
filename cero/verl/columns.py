"""Do the columns of the data set that settings name hold what they must?

The rows are looked at when the data has been loaded, and before the model is.
"""

import numpy as np

from cero.core.checks import as_numbers, at_ends
from cero.estimators.shared import TEXT
from cero.verl import queue
from cero.verl.identity import audited, in_row, is_missing, slots_of_rows


def check_columns(dataset, settings, files):
    """Raise ValueError, naming key, column and remedy, if a row lacks what a setting says that it has.

    dataset : verl's, or any with rows in `dataframe`; of others only the first row is looked at. At most
        `cero.verl.identity.AUDITED` rows, evenly spaced, are read.
    settings : `Settings`; files : data.train_files, for the message
    """
    first, rates, bucket = dataset[0], settings.pass_rates[0], settings.bucket
    if rates is not None and rates not in first:
        raise ValueError(
            f"cero.pass_rates.column={rates} is no column of data.train_files={files}; "
            f"there are {', '.join(first)}"
        )
    if bucket is not None:
        slots_of_rows([first], bucket)  # refuses a column that is not there
    if rates is not None:
        rates_of(rates, [row[rates] for row in audited(dataset, [rates])])
    if bucket in (None, TEXT):
        return
    rows = audited(dataset, [bucket, bucket.partition(".")[0]])
    empty = sum(is_missing(in_row(row, bucket)) for row in rows)
    if empty:
        raise ValueError(
            f"algorithm.cero.bucket={bucket}: {empty} of {len(rows)} rows of data.train_files={files} have "
            "nothing there; fill them, name another column, or set algorithm.cero.bucket to null"
        )


def rates_of(name, column):
    """Return the pass rates in a column as a float array; nan where it holds None.

    Raises ValueError, naming the column `name`, for what is no number, or outside [0, 1].
    """
    values = [float("nan") if value is None else value for value in queue.plain(column)]
    rates = as_numbers(f"cero.pass_rates.column={name}: its values", values)
    within = at_ends(rates, 0.0, 1.0)
    wrong = rates[np.isinf(rates) | (within < 0) | (within > 1)]
    if wrong.size:
        raise ValueError(
            f"cero.pass_rates.column={name} holds {wrong[0]:g}; rates must lie in [0, 1], and be nan or null "
            "where they are unknown"
        )
    return rates
