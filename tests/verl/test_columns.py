"""Are columns that settings name looked at in all rows, before the model is loaded?"""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from tensordict.tensorclass import NonTensorData

from cero.verl import identity
from cero.verl.columns import check_columns, rates_of
from cero.verl.queue import plain

NAN = float("nan")


class Data:
    """Stand in for verl's data set: rows of a table, as dicts."""

    def __init__(self, **columns):
        size = len(next(iter(columns.values())))
        self.dataframe = Dataset.from_dict(
            {"prompt": [[{"role": "user", "content": "1+1"}]] * size, **columns}
        )

    def __getitem__(self, place):
        row = dict(self.dataframe[place])
        return {**row, "raw_prompt": row["prompt"]}


def check(data, bucket=None, rates=None):
    check_columns(data, SimpleNamespace(pass_rates=(rates, 4.0), bucket=bucket), "train.parquet")


def test_rows_that_have_what_is_named():
    data = Data(topic=["a", "b"], rate=[0.5, None], extra_info=[{"kind": "x"}, {"kind": "y"}])
    for bucket in (None, "text", "topic", "extra_info.kind"):
        check(data, bucket, "rate")
    check([{"raw_prompt": "", "topic": "a"}], "topic")  # no table: only the first row is looked at


@pytest.mark.parametrize(
    "bucket, columns",
    [
        ("topic", {"topic": ["a", None, None]}),
        ("extra_info.kind", {"extra_info": [{"kind": "x"}, {"kind": None}, None]}),
    ],
)
def test_later_rows_without_a_bucket_are_counted(bucket, columns):
    message = f"algorithm.cero.bucket={bucket}: 2 of 3 rows of data.train_files=train.parquet have nothing"
    with pytest.raises(ValueError, match=message):
        check(Data(**columns), bucket)


@pytest.mark.parametrize("rate", [50.0, -1.0, float("inf")])
def test_a_later_rate_out_of_range_is_named(rate):
    message = rf"cero.pass_rates.column=rate holds {rate:g}; rates must lie in \[0, 1\], and be nan or null"
    with pytest.raises(ValueError, match=message):
        check(Data(rate=[0.5, NAN, None, rate]), rates="rate")
    with pytest.raises(ValueError, match=message):  # of rows that were not looked at
        rates_of("rate", [0.5, None, rate])


def test_what_is_no_column_or_no_number_is_named():
    data = Data(rate=["a", "b"])
    with pytest.raises(ValueError, match="column=solved is no column .*there are prompt, rate"):
        check(data, rates="solved")
    with pytest.raises(ValueError, match="cero.pass_rates.column=rate: its values=.* must be numbers"):
        check(data, rates="rate")


def test_many_rows_are_looked_at_evenly(monkeypatch):
    monkeypatch.setattr(identity, "AUDITED", 10)
    rates = np.full(95, 0.5)
    rates[[1, 2]] = 7.0
    check(Data(rate=rates), rates="rate")  # every tenth row
    rates[90] = 7.0
    with pytest.raises(ValueError, match="holds 7"):
        check(Data(rate=rates), rates="rate")


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.int64])
def test_values_of_any_kind_of_column(kind):
    wrapped = [NonTensorData(kind(1)), NonTensorData(None)]
    assert plain([kind(1), None]) == plain(wrapped) == [1, None]
    np.testing.assert_array_equal(rates_of("rate", [kind(1), None]), [1.0, NAN])
