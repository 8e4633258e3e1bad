"""Which options does a function take? Those that may be given by keyword only: what follows the star.

>>> def rule(rewards, *, ratio, count=4): ...
>>> options_of(rule)
('ratio', 'count')
"""

import inspect
from collections.abc import Callable
from typing import Any


def options_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the keyword-only arguments of `function`, in their order."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
