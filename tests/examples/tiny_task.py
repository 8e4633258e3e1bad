"""How do tests load the modules of a task of examples/arithmetic/folder.py, and make a tiny folder of it?"""

import importlib.util
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHARED = EXAMPLES / "arithmetic"  # has the code of all such tasks


class TinyTask:
    """The example `name` with settings of its prepare.py (list of str) that take a second or two."""

    def __init__(self, name, settings):
        self.name, self.folder, self.settings = name, EXAMPLES / name, settings
        self.prepare = self.load("prepare")

    def load(self, name, folder=None):
        """Return a module of the example under a name of its own: other examples have a reward.py, too."""
        path = (folder or self.folder) / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"{self.name}_{name}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    def arguments(self, out, *more):
        """Return the arguments of prepare.py for the folder `out`, with further ones."""
        return self.prepare.parse_arguments(["--out", str(out), *self.settings, *map(str, more)])

    def make(self, out, *more):
        """Run prepare.py in this process, which has loaded PyTorch already; return `out`."""
        names = {path.stem for folder in (self.folder, SHARED) for path in folder.glob("*.py")}
        others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        path = list(sys.path)
        sys.path[:0] = [str(self.folder), str(SHARED)]
        try:
            self.prepare.folder.prepare(self.prepare.TASK, self.arguments(out, *more))
        finally:
            sys.path[:] = path
            for name in names:
                sys.modules.pop(name, None)
            sys.modules.update(others)
        return out
