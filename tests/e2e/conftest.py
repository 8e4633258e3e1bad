"""Which trainings do tests share? A start of verl takes more than a minute of a core."""

import pytest


@pytest.fixture(scope="session")
def lopsided_run(tmp_path_factory):
    """The folder of a run with the allocator of an installed package and a high learning rate.

    Some updates don't reach the sampler (`hearing.WITHHELD`). The metrics of each step are in metrics.jsonl.
    """
    from hearing import EXTENSION, MODULE, STEPS
    from lopsided import install
    from tiny import train_at_a_high_rate

    folder = tmp_path_factory.mktemp("lopsided")
    install(folder / "source", folder / "site")
    (folder / "site" / "hard_of_hearing.py").write_text(MODULE)
    train_at_a_high_rate(folder, STEPS, folder / "site", "allocator=lopsided", EXTENSION)
    return folder
