"""Which fixture do the tests of tiny tasks share? A folder of the task."""

import pytest


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """A folder made by the test module's EXAMPLE, a `TinyTask`."""
    return request.module.EXAMPLE.make(tmp_path_factory.mktemp("example") / "made")
