"""How does a run end with everything that it started?

Ray starts processes in sessions of their own and vLLM more of them, so a process group is not enough. On
Linux orphans are adopted by the process that asks for it: whatever a run leaves behind is then found among
our descendants.
"""

import ctypes
import os
import subprocess
import sys
import time

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
# The run dies with us, even if we are killed outright; Ray's processes die with theirs.
LAUNCH = (
    "import ctypes, os, sys\n"
    f"if sys.platform == 'linux': ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, 9)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def _descendants():
    return {process for process in psutil.Process().children(recursive=True)}


class Tree:
    """A command and all processes that descend from it; stdout and stderr go to the file `log`.

    command : list of str; cwd : folder; env : dict
    """

    def __init__(self, command, cwd, env, log):
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._others = _descendants()  # not ours to end
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, *command],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it in order
            )

    def poll(self):
        """Exit status of the command, None while it runs."""
        return self.process.poll()

    def left(self):
        """Processes of the tree that still run."""
        return _descendants() - self._others

    def end(self, grace=15.0):
        """End what is left: asked first, so that shared memory is given back, killed after `grace` seconds."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        deadline = time.monotonic() + min(grace, 5.0)
        while self.left() and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.1)
        deadline = time.monotonic() + 30.0
        while (left := self.left()) and time.monotonic() < deadline:
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    pass
            if self.process.poll() is None:
                self.process.wait()
            self._reap()

    def _reap(self):
        """Collect the orphans that we were given and that have ended."""
        orphans = [process for process in self.left() if process.pid != self.process.pid]
        psutil.wait_procs(orphans, timeout=0.2)


def environment(scratch):
    """os.environ for a run whose Ray keeps its files under `scratch` and joins nobody else's cluster."""
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return env | {"RAY_TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
