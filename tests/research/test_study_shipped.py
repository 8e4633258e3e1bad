"""Are the study's runs and warm starts, which the repository holds, complete and readable?"""

import hashlib
from pathlib import Path

import pytest

from cero.research.study.archive import RECORDS, TABLES, packed_records
from cero.research.study.curves import read_curves
from cero.research.study.tables import COLUMNS

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs" / "results" / "study"


@pytest.mark.slow
def test_the_studys_runs_are_there():
    """The shipped runs: each has a curve, and pandas reads them in one line each."""
    pandas = pytest.importorskip("pandas")
    curves = read_curves(STUDY)
    assert len(curves) == len(packed_records(STUDY)) >= 250
    assert set(COLUMNS) <= set(pandas.read_csv(STUDY / TABLES))
    assert len(pandas.read_json(STUDY / RECORDS, lines=True)) == len(curves)


@pytest.mark.parametrize("task", ["letters", "arithmetic"])
def test_warm_starts_are_those_of_the_runs(task, monkeypatch):
    """Unpacked, the weights have the digest that is in the record of every run of the task."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "benchmark")
    import prepare

    weights = prepare.unpack(prepare.packed(task).read_bytes())
    records = [record for key, record in packed_records(STUDY).items() if key[0] == task]
    assert {record["warm_start"] for record in records} == {hashlib.sha256(weights).hexdigest()[:16]}
    assert prepare.unpack(prepare.pack(weights[:4000])) == weights[:4000]
