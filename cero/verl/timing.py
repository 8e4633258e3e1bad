"""How long does the scheduler take, and what does it do while verl's thread waits for its workers?"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


class Pending:
    """What another thread works out: `result()` waits for it, and counts the wait as the scheduler's time."""

    def __init__(self, future, stopwatch, what):
        self._future, self._stopwatch, self._what = future, stopwatch, what

    def result(self):
        """Return it, or raise what was raised in its place."""
        with self._stopwatch.timed(self._what):
            return self._future.result()

    def wait(self):
        """Wait until it is there; counts for nothing."""
        self._future.exception()


class Stopwatch:
    """Counts the scheduler's seconds since they were last taken.

    They are of two kinds: those that verl's thread spends in a part of the scheduler, and, as "background",
    the CPU seconds of the scheduler's own thread, which works while verl's thread waits for its workers.
    """

    def __init__(self):
        self._seconds = {}
        # One thing at a time, in the order they came: what is learned must not depend on threads.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cero")

    @contextmanager
    def timed(self, what):
        """Count what is done within it, in seconds of the wall clock, as the part `what`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(what, time.perf_counter() - started)

    def add(self, what, seconds):
        """Count `seconds` more as the part `what`."""
        self._seconds[what] = self._seconds.get(what, 0.0) + seconds

    def beside(self, what, function, *arguments):
        """Have the scheduler's own thread call `function`; returns a `Pending` whose wait counts as `what`."""

        def call():
            started = time.thread_time()  # of the CPU: the thread waits for the queue a lot
            result = function(*arguments)
            self.add("background", time.thread_time() - started)
            return result

        return Pending(self._thread.submit(call), self, what)

    def take(self):
        """Return the seconds so far, a dict of part -> float, and count from 0 again."""
        taken, self._seconds = self._seconds, {}
        return taken
