"""Python imports this at its start where scripts/test.sh has put this folder on the path.

The tests start dozens of processes that import verl, vLLM and PyTorch. Their imports make millions of
objects, all of which stay, and a fifth of the time went into looking through them for garbage.
"""

import gc

gc.set_threshold(50_000, 20, 50)
