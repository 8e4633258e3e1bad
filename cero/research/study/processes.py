"""How does a run end with everything that it started?

Ray starts processes in sessions of their own and vLLM more of them, so a process group is not enough. On
Linux a process can ask to adopt orphans: whatever a run leaves behind is then found among the descendants of
this process.
"""

import ctypes
import os
import subprocess
import sys
import time

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
# The run ends with this process, even if it is killed outright; Ray's processes end with the run.
LAUNCH = (
    "import ctypes, os, sys\n"
    f"if sys.platform == 'linux': ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, 9)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def _descendants():
    return {process for process in psutil.Process().children(recursive=True)}


class Tree:
    """Runs a command and knows all processes that descend from it; its output goes to the file `log`.

    command : list of str; cwd : folder; env : dict
    """

    def __init__(self, command, cwd, env, log):
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._others = _descendants()  # none of the tree's
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, *command],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the run in order
            )

    def poll(self):
        """Return the exit status of the command, None while it runs."""
        return self.process.poll()

    def left(self):
        """Return the processes of the tree that still run."""
        return _descendants() - self._others

    def end(self, grace=15.0):
        """End what is left: ask, so that shared memory is given back, and kill after `grace` seconds."""
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
        """Collect the adopted orphans that have ended."""
        orphans = [process for process in self.left() if process.pid != self.process.pid]
        psutil.wait_procs(orphans, timeout=0.2)


def environment(scratch):
    """Return os.environ for a run whose Ray keeps its files under `scratch` and joins no other cluster."""
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return env | {"RAY_TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
