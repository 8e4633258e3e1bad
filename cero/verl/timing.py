"""How much time does the scheduler take, in verl's thread and in its own?"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


class Pending:
    """Hold a value that another thread computes; waiting for it counts as the scheduler's time."""

    def __init__(self, future, stopwatch, what):
        self._future, self._stopwatch, self._what = future, stopwatch, what

    def result(self):
        """Wait for the value and return it, or raise the error that ended its computation."""
        with self._stopwatch.timed(self._what):
            return self._future.result()

    def wait(self):
        """Wait until the value is there; this wait is not counted, and no error is raised."""
        self._future.exception()


class Stopwatch:
    """Count the scheduler's seconds since they were last taken.

    They are of two kinds: seconds that verl's thread spends in a part of the scheduler, and, as "background",
    CPU seconds of the scheduler's own thread, which works while verl's thread waits for its workers.
    """

    def __init__(self):
        self._seconds = {}
        # A single thread, so calls run in the order they came: what is learned must not depend on timing.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cero")

    @contextmanager
    def timed(self, what):
        """Count the wall-clock seconds spent within it as the part `what` (str)."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(what, time.perf_counter() - started)

    def add(self, what, seconds):
        """Count `seconds` more as the part `what`."""
        self._seconds[what] = self._seconds.get(what, 0.0) + seconds

    def beside(self, what, function, *arguments):
        """Have the scheduler's own thread call `function`; return a `Pending` whose wait counts as `what`."""

        def call():
            started = time.thread_time()  # CPU time, since the thread mostly waits for the queue
            result = function(*arguments)
            self.add("background", time.thread_time() - started)
            return result

        return Pending(self._thread.submit(call), self, what)

    def take(self):
        """Return the seconds so far, a dict of part -> float, and start again at 0."""
        taken, self._seconds = self._seconds, {}
        return taken
