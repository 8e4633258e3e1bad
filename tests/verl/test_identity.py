"""Is a prompt's id that of its content, and of nothing else?"""

import datetime
import subprocess
import sys
from decimal import Decimal
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from verl.utils import tensordict_utils as tu

from cero.core.prompts import prompt_id
from cero.estimators.shared import slots_of_texts, slots_of_values
from cero.verl.identity import audit, batch_prompt_ids, given_id, in_row, row_prompt_id, slots_of_rows


def message(text, **more):
    return [{"role": "user", "content": text, **more}]


def batch(texts, answers, source="s", **columns):
    def column(values):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array

    return tu.get_tensordict(
        {
            "raw_prompt": column([message(text) for text in texts]),
            "data_source": column([source] * len(texts)),
            "reward_model": column([{"style": "rule", "ground_truth": answer} for answer in answers]),
            "uid": column([f"u{i}" for i in range(len(texts))]),
            "index": column([0] * len(texts)),
            **{key: column(values) for key, values in columns.items()},
        }
    )


def test_ids_do_not_depend_on_place_or_file():
    one = batch_prompt_ids(batch(["1+1", "2+2", "3+3"], ["2", "4", "6"]))
    other = batch_prompt_ids(batch(["3+3", "1+1", "2+2"], ["6", "2", "4"]))
    assert one.dtype == np.uint64
    assert one.tolist() == [other[1], other[2], other[0]]
    assert batch_prompt_ids(batch(["1+1"], ["2"])).tolist() == [one[0]]  # a batch of one, too


def test_answer_source_and_text_all_count():
    ids = [
        row_prompt_id("s", message("1+1"), "2"),
        row_prompt_id("s", message("1+1"), "3"),
        row_prompt_id("s", message("1+1"), 2),
        row_prompt_id("t", message("1+1"), "2"),
        row_prompt_id("s", message("1 + 1"), "2"),
        row_prompt_id("s", message("1+1") * 2, "2"),
        row_prompt_id("s", [{"role": "system", "content": "1+1"}], "2"),
    ]
    assert len(set(ids)) == len(ids)


def test_true_duplicates_are_one_prompt():
    ids = batch_prompt_ids(batch(["1+1", "1+1"], ["2", "2"]))
    assert ids[0] == ids[1]


def test_parquets_empty_keys_do_not_count():
    assert row_prompt_id("s", message("1+1", name=None), "2") == row_prompt_id("s", message("1+1"), "2")


def test_images_count():
    def with_image(colour):
        return [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (4, 4), colour)}]}]

    assert row_prompt_id("s", with_image("red"), "1") == row_prompt_id("s", with_image("red"), "1")
    assert row_prompt_id("s", with_image("red"), "1") != row_prompt_id("s", with_image("blue"), "1")


def test_a_column_overrides():
    ids = batch_prompt_ids(batch(["1+1", "2+2"], ["2", "4"], prompt_id=["first", "second"]))
    assert ids.tolist() == [prompt_id("first"), prompt_id("second")]


def test_unhashable_content_is_an_error():
    with pytest.raises(ValueError, match="prompt_id"):
        row_prompt_id("s", [{"role": "user", "content": object()}], "2")


def objects(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


SAME = [
    (["Paris", "Rome"], ("Paris", "Rome"), objects("Paris", "Rome"), np.array(["Paris", "Rome"])),
    (
        [1, 2],
        (1, 2),
        np.array([1, 2]),
        np.array([1, 2], np.int32),
        objects(1, np.int64(2)),
        torch.tensor([1, 2]),
    ),
    ([[1.5], [2.0]], np.array([[1.5], [2.0]]), objects(np.array([1.5]), [2.0])),
    (True, np.bool_(True), np.array(True)),
    ("Rome", np.str_("Rome"), np.array("Rome"), np.array("Rome", dtype=object)),
    ({"a": ["x"], "b": None}, {"a": objects("x")}),
]


@pytest.mark.parametrize("values", SAME, ids=range(len(SAME)))
def test_the_same_content_in_whatever_container(values):
    assert len({row_prompt_id("nq", "q", value) for value in values}) == 1


def test_other_content_is_another_prompt():
    values = [1, 1.0, True, "1", b"1", [1], [[1]], {"1": 1}, {1: 1}, None, Decimal("1"), 1 + 0j]
    values += [datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.timedelta(1)]
    assert len({row_prompt_id("nq", "q", value) for value in values}) == len(values)


@pytest.mark.slow
def test_objects_are_the_same_in_another_process():
    code = (
        "import numpy as np; from cero.verl.identity import row_prompt_id; "
        "print(row_prompt_id('nq', 'q', [np.array(['Paris', 'Rome'], dtype=object), {'b', 'a', 'c'}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) == row_prompt_id(
        "nq", "q", [objects("Paris", "Rome"), {"c", "a", "b"}]
    )


@pytest.mark.parametrize(
    "value, expected",
    [
        (7, 7), (np.uint64(2**64 - 1), 2**64 - 1), (np.int32(3), 3), (3.0, 3), (np.float32(3), 3),
        (np.array(5), 5), (Decimal(9), 9), ("12", prompt_id("12")), (np.str_("12"), prompt_id("12")),
        (None, None), (float("nan"), None), (np.float64("nan"), None), ("", None),
    ],
)  # fmt: skip
def test_what_is_plainly_an_id(value, expected):
    assert given_id(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        1.5,
        np.float32(1.7),
        True,
        np.bool_(False),
        b"12",
        -1,
        2**64,
        1e300,
        float("inf"),
        2.0**60,
        [1],
        {"a": 1},
    ]
    + [datetime.timedelta(1), 1j, Decimal("1.5")],
)
def test_what_is_no_id_is_refused(value):
    with pytest.raises(ValueError, match="column 'prompt_id' holds .*whole numbers"):
        given_id(value)


def test_rows_without_an_id_are_known_by_their_content():
    texts, answers = ["1+1", "2+2", "3+3"], ["2", "4", "6"]
    ids = batch_prompt_ids(batch(texts, answers, prompt_id=["first", None, float("nan")]))
    assert ids.tolist() == [prompt_id("first"), *batch_prompt_ids(batch(texts, answers)).tolist()[1:]]


ROW = {
    "raw_prompt": message("Add 3 and 4"),
    "data_source": "sums",
    "topic.kind": "a",
    "level": np.int64(3),
    "extra_info": {"topic": "addition", "deep": {"er": 7}, "none": None},
}


def test_what_a_row_has_in_a_column():
    assert in_row(ROW, "data_source") == "sums" and in_row(ROW, "topic.kind") == "a"
    assert in_row(ROW, "extra_info.topic") == "addition" and in_row(ROW, "extra_info.deep.er") == 7
    for absent in ("topic", "extra_info.none", "extra_info.other", "data_source.x", "extra_info.topic.x"):
        assert in_row(ROW, absent) is None


def test_slots_of_rows():
    def slots(row, bucket):
        return slots_of_rows([row], bucket).tolist()

    assert slots(ROW, "text") == slots_of_texts(["Add 3 and 4"]).tolist()
    assert slots(ROW, "data_source") == slots({"data_source": np.str_("sums")}, "data_source")
    assert slots(ROW, "extra_info.deep.er") != slots(ROW, "extra_info.topic")
    assert slots(ROW, "level") == slots({"level": 3}, "level") == slots_of_values([b"v3"]).tolist()
    assert slots_of_rows([ROW, ROW], "text").tolist() == slots(ROW, "text") * 2


@pytest.mark.parametrize("bucket", ["topic", "extra_info.none", "extra_info.topik"])
def test_a_row_without_its_bucket_is_refused(bucket):
    with pytest.raises(
        ValueError, match=f"algorithm.cero.bucket={bucket}: a row .*has nothing there, only raw_p"
    ):
        slots_of_rows([ROW, ROW], bucket)
    with pytest.raises(ValueError, match="bucket=text: a row .*has no raw_prompt"):
        slots_of_rows([ROW, {"data_source": "sums"}], "text")
    with pytest.raises(ValueError, match="bucket=level: a row"):
        slots_of_rows([{"level": float("nan")}], "level")


def rows(count, **columns):
    data = {
        "prompt": [message("solve the task")] * count,
        "data_source": ["s"] * count,
        "reward_model": [{"style": "rule", "ground_truth": ""}] * count,
    }
    return SimpleNamespace(dataframe=datasets.Dataset.from_dict(data | columns))


def test_tasks_that_are_told_apart_by_nothing_of_the_prompt():
    tasks = rows(64, extra_info=[{"index": i, "task": f"task {i}"} for i in range(64)])
    (warning,) = audit(tasks)
    assert (
        "63 rows" in warning
        and "extra_info or columns like tools_kwargs" in warning
        and "'prompt_id'" in warning
    )
    assert audit(rows(64, prompt_id=[f"{i}" for i in range(64)])) == []
    assert audit(rows(64, extra_info=[{"index": i} for i in range(64)])) == []


def test_two_files_with_the_same_ids():
    texts = [message(f"{file}: {i}") for file in "ab" for i in range(32)]
    (warning,) = audit(rows(64, prompt=texts, prompt_id=[i for _ in "ab" for i in range(32)]))
    assert "32 rows have a prompt_id that another question has too, e.g. 0" in warning
    assert audit(rows(64, prompt=texts, prompt_id=list(range(64)))) == []
    (warning,) = audit(rows(64, prompt=texts, prompt_id=[None, *range(63)]))
    assert "1 of 64 rows have no prompt_id" in warning


def test_a_data_set_of_another_kind_is_left_alone():
    assert audit([{"prompt": 1}]) == [] and audit(SimpleNamespace(dataframe=None)) == []


@pytest.mark.parametrize("value", [pd.NA, pd.NaT, Decimal("nan"), Decimal("sNaN")], ids=repr)
def test_what_pandas_and_decimals_have_for_nothing_is_no_id(value):
    assert given_id(value) is None


def test_a_huge_integer_is_no_id():
    with pytest.raises(ValueError, match="'prompt_id' holds an integer of thousands of digits"):
        given_id(10**5000)


def test_numbers_that_python_has_not_count_by_their_content():
    one, other = np.longdouble("1.1"), np.longdouble("1.2")
    assert row_prompt_id("s", "q", one) == row_prompt_id("s", "q", np.longdouble("1.1"))
    assert row_prompt_id("s", "q", one) != row_prompt_id("s", "q", other)
    assert row_prompt_id("s", "q", 10**5000) != row_prompt_id("s", "q", 10**5000 + 1)


class Shown(int):
    __repr__ = object.__repr__


def test_content_without_an_end_or_with_an_address_is_refused():
    endless = []
    endless.append(endless)
    for answer in (endless, Shown(3)):
        with pytest.raises(ValueError, match="add a column 'prompt_id'"):
            row_prompt_id("s", "q", answer)


@pytest.mark.parametrize("extra", [['{"a": 1}', '{"a": 2}'], [[1], [2]], [1, 2]], ids=repr)
def test_extra_info_that_is_no_dict(extra):
    (warning,) = audit(rows(2, extra_info=extra))
    assert "1 rows" in warning and "extra_info" in warning


def test_tasks_in_arguments_of_other_kinds():
    (warning,) = audit(rows(3, interaction_kwargs=[{"seed": seed} for seed in range(3)]))
    assert "2 rows" in warning and "columns like tools_kwargs" in warning


def test_a_bucket_of_numpys_nan_is_no_bucket():
    with pytest.raises(ValueError, match="has nothing there"):
        slots_of_rows([{"topic": np.float32("nan")}], "topic")
