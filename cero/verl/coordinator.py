"""Which of a step's prompts sample further? The part that all workers share, without Ray or verl.

`Coordinator` holds the step, once for all workers. `PromptSampling` holds one prompt's sessions, in the
worker that runs them. A prompt is told how many rollouts to launch next as soon as the step's rule has
decided, which may be long after the prompt's own report.
"""

import asyncio
import copy


class Coordinator:
    """Play a `cero.allocators.rounds.Step` with prompts that report from elsewhere, in any order.

    No failure leaves a prompt waiting: all that wait are told that sampling is over, and `close_step` raises.
    """

    def __init__(self):
        self._step, self._error, self._grants, self._index = None, None, [], {}
        self._over = asyncio.Event()

    async def open_step(self, uids, step):
        """Start `step`, whose prompts have these `uids` (distinct, in the step's order).

        Raises RuntimeError if the sampling of another step is not over.
        """
        if self._step is not None and not self._over.is_set():
            raise RuntimeError("a step's sampling began while another's was going on")
        # Copied, because arrays that come from Ray are read-only.
        self._step, self._error, self._over = copy.deepcopy(step), None, asyncio.Event()
        self._index = {uid: i for i, uid in enumerate(uids)}
        loop = asyncio.get_running_loop()
        self._grants = [loop.create_future() for _ in uids]
        counts = self._step.start()
        self._grant({i: int(n) for i, n in enumerate(counts) if n or self._step.over})

    async def first(self, uid):
        """Wait for the first rollouts of prompt `uid` and return their number; 0 if it launches none."""
        return await self._grants[self._index[uid]]

    async def report(self, uid, successes, trials):
        """Report what came back of all rollouts in flight of prompt `uid` (`Step.report`).

        Returns how many more it launches, as soon as the rule has decided; 0 if it is over.
        """
        if self._error is not None:
            return 0
        try:
            index = self._index[uid]
            self._grants[index] = asyncio.get_running_loop().create_future()
            self._grant(self._step.report(index, successes, trials))
        except Exception as error:
            await self.fail(f"{type(error).__name__}: {error}")
            raise
        return await self._grants[index]

    async def fail(self, message):
        """End sampling for every prompt; `close_step` will raise with the first such `message`."""
        self._error = self._error or message
        for grant in self._grants:
            if not grant.done():
                grant.set_result(0)
        self._over.set()

    async def close_step(self):
        """Wait until every prompt is over and return the finished step.

        Raises
        ------
        RuntimeError
            If sampling was ended by `fail`.
        """
        await self._over.wait()
        if self._error is not None:
            raise RuntimeError(f"sampling in rounds was given up: {self._error}")
        return self._step

    def _grant(self, counts):
        for index, count in counts.items():
            self._grants[index].set_result(count)
        if self._step.over:
            self._over.set()


class PromptSampling:
    """Make one prompt's sessions, which verl starts all at once, wait for their turns.

    most : int, the number of sessions that may run in all. To be made inside a running event loop.
    """

    def __init__(self, most):
        loop = asyncio.get_running_loop()
        self._turns = [loop.create_future() for _ in range(most)]  # True: run, False: never
        self._ends = [loop.create_future() for _ in range(most)]  # a success in [0, 1], or None: failed

    async def session(self, number, run):
        """Await `run()` once session `number` (from 0) may run; return its result, or None if it never may."""
        if not await self._turns[number]:
            return None
        try:
            return await run()
        finally:
            self._end(number, None)

    def scored(self, number, success):
        """Note that session `number`, which is running, has a reward worth `success`, in [0, 1]."""
        self._end(number, success)

    async def play(self, first, report):
        """Run rounds until there are no more.

        first : coroutine function, () -> number of sessions to run
        report : coroutine function, (successes, trials) of the last round -> number of sessions to run next;
            0 ends the prompt
        """
        begun = 0
        try:
            more = await first()
            while more:
                for turn in self._turns[begun : begun + more]:
                    turn.set_result(True)
                ends = await asyncio.gather(*self._ends[begun : begun + more])
                successes = [success for success in ends if success is not None]
                begun += more
                more = await report(float(sum(successes)), len(successes))
        finally:
            for turn in self._turns[begun:]:
                if not turn.done():
                    turn.set_result(False)

    def abandon(self):
        """Count every session that has not ended as failed, so that `play` comes to its end."""
        for number in range(len(self._ends)):
            self._end(number, None)

    def _end(self, number, success):
        if not self._ends[number].done():
            self._ends[number].set_result(success)
