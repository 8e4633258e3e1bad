"""Which fixtures do the tests of the study's machinery share? Its files and a runner of the stand-in."""

import sys

import pytest
from stand_in import CONTENDERS, STUB, TASKS

from cero.research.study.runner import Runner


@pytest.fixture
def files(tmp_path):
    """Paths of a tasks.yaml and a contenders.yaml."""
    (tmp_path / "tasks.yaml").write_text(TASKS)
    (tmp_path / "contenders.yaml").write_text(CONTENDERS)
    return tmp_path / "tasks.yaml", tmp_path / "contenders.yaml"


@pytest.fixture
def runner(tmp_path):
    (tmp_path / "main_ppo.py").write_text(STUB)
    return Runner(
        tmp_path / "out",
        tmp_path / "work",
        [sys.executable, tmp_path / "main_ppo.py"],
        root=tmp_path,
        poll=0.05,
        grace=0.5,
    )
