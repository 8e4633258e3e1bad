"""Is a prompt's id that of its content, and of nothing else?"""

import numpy as np
import pytest
from PIL import Image
from verl.utils import tensordict_utils as tu

from cero.core.prompts import prompt_id
from cero.verl.identity import batch_prompt_ids, row_prompt_id


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
