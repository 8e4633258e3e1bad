"""Which trainings do tests share? A start of verl takes more than a minute of a core."""

import pytest


@pytest.fixture(scope="session")
def lopsided_run(tmp_path_factory):
    """The folder of a run of four steps with the allocator of an installed package and a high learning rate.

    It has the metrics of each step in metrics.jsonl.
    """
    from lopsided import install
    from tiny import train_at_a_high_rate

    folder = tmp_path_factory.mktemp("lopsided")
    install(folder / "source", folder / "site")
    train_at_a_high_rate(folder, True, folder / "site", "allocator=lopsided")
    return folder
