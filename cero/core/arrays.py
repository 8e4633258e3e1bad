"""Names of the array types in signatures. What shape an array has, its docstring says."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.integer[Any]]
Ids: TypeAlias = NDArray[np.uint64]
Flags: TypeAlias = NDArray[np.bool_]
AnyArray: TypeAlias = NDArray[Any]
FloatOrFloats: TypeAlias = float | Floats
