"""Does sampling in rounds always end, in whatever order prompts report, and however they fail?"""

import asyncio

import numpy as np
import pytest

from cero.allocators import make_allocator
from cero.allocators.rounds import Rounds, Step
from cero.verl.coordinator import Coordinator, PromptSampling


def run(coroutine, seconds=5):
    """Run to the end, or fail after `seconds`, so that a deadlock does not hang the tests."""
    return asyncio.run(asyncio.wait_for(coroutine, seconds))


class UntilSuccess(Step):
    """Give `first` (shape (n,)) rollouts, then one at a time until a success."""

    def __init__(self, first, cap=100, n_max=8):
        super().__init__(np.arange(len(first)), cap, n_max)
        self.first = np.asarray(first)

    def _first(self):
        return self.first

    def _next(self, idle):
        return np.where(self.successes[idle] > 0, 0, 1)


class Barrier(Rounds):
    """Give one rollout in each round to every prompt that waits."""

    def __init__(self, first, rounds=2, quorum=1.0, cap=100):
        super().__init__(np.arange(len(first)), cap, 8, rounds, quorum)
        self.first, self.seen = np.asarray(first), []

    def _first(self):
        return self.first

    def _spend(self, idle, budget):
        self.seen.append(idle.tolist())
        return np.ones(idle.size, np.int64)


class Broken(UntilSuccess):
    def _next(self, idle):
        raise ZeroDivisionError("a rule with a mistake")


def names(step):
    return [f"u{i}" for i in range(step.ids.size)]


async def sample(step, outcome, delay=lambda prompt, number: 0.0, spoil=None):
    """Play `step` as workers do, with every prompt at once. Returns (finished step, launches).

    outcome : (prompt, number) -> a success; None where the session has no reward; an exception that it raises
    delay : (prompt, number) -> seconds; spoil : None, or coroutine function of the coordinator, which runs
    beside the prompts
    """
    coordinator, launches = Coordinator(), []
    await coordinator.open_step(names(step), step)

    async def prompt(i):
        sampling = PromptSampling(step.n_max)

        async def rollout(number):
            launches.append((i, number))
            await asyncio.sleep(delay(i, number))
            result = outcome(i, number)
            if isinstance(result, Exception):
                raise result
            if result is not None:
                sampling.scored(number, result)

        async def play():
            try:
                await sampling.play(
                    lambda: coordinator.first(f"u{i}"),
                    lambda won, tried: coordinator.report(f"u{i}", won, tried),
                )
            except Exception as error:
                await coordinator.fail(str(error))

        sessions = [sampling.session(n, lambda n=n: rollout(n)) for n in range(step.n_max)]
        return await asyncio.gather(play(), *sessions, return_exceptions=True)

    await asyncio.gather(*[prompt(i) for i in range(step.ids.size)], *([spoil(coordinator)] if spoil else []))
    return await coordinator.close_step(), launches


def test_prompts_go_on_until_they_are_over_and_sessions_count_up():
    step, launches = run(sample(UntilSuccess([2, 2, 1]), lambda i, n: float(n >= 2 * i)))
    assert step.launched.tolist() == [2, 3, 5] and step.trials.tolist() == [2, 3, 5]
    assert step.rounds.tolist() == [1, 2, 5] and step.over
    assert sorted(launches) == [(i, n) for i in range(3) for n in range(step.launched[i])]


def test_prompts_do_not_wait_for_each_other():
    """Prompt 1 has played three rounds when prompt 0's first rollout comes back."""
    _, launches = run(
        sample(UntilSuccess([1, 1]), lambda i, n: float(n == 3), lambda i, n: 0.2 if i == 0 else 0.001)
    )
    assert launches[:4] == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_a_prompt_without_first_rollouts_waits_for_its_turn_or_for_the_end():
    step, launches = run(sample(Barrier([0, 2]), lambda i, n: 1.0))
    assert step.launched.tolist() == [2, 4] and launches[:2] == [(1, 0), (1, 1)]
    step, launches = run(sample(Barrier([0, 2], rounds=0), lambda i, n: 1.0))
    assert step.launched.tolist() == [0, 2]


def test_nothing_to_launch_at_all_is_over_at_once():
    step, launches = run(sample(UntilSuccess([0, 0]), lambda i, n: 1.0))
    assert step.over and launches == []


@pytest.mark.parametrize("quorum, rounds", [(1.0, [[0, 1, 2], [0, 1, 2]]), (0.6, [[0, 1], [0, 1]])])
def test_barriers_and_rounds_that_overlap(quorum, rounds):
    """With a quorum, a straggler misses rounds, and the others do not wait for it."""
    step = Barrier([1, 1, 1], quorum=quorum)
    finished, _ = run(sample(step, lambda i, n: 1.0, lambda i, n: 0.2 if i == 2 else 0.001))
    assert finished.seen == rounds and finished.over
    assert finished.launched.tolist() == [3, 3, 3 if quorum == 1 else 1]


@pytest.mark.parametrize("failure", [None, TimeoutError("too long")])
def test_a_session_without_a_reward_ends_its_prompt_and_no_other(failure):
    step, _ = run(sample(UntilSuccess([2, 2]), lambda i, n: failure if (i, n) == (0, 1) else float(n == 3)))
    assert step.launched.tolist() == [2, 4] and step.trials.tolist() == [1, 4]
    step, _ = run(sample(Barrier([2, 2]), lambda i, n: failure if i == 0 else 1.0))
    assert step.launched.tolist() == [2, 4] and step.trials.tolist() == [0, 4]


def test_a_rule_with_a_mistake_releases_everyone_and_is_heard_of():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a rule with a mistake"):
        run(sample(Broken([1, 1, 0]), lambda i, n: 1.0))


def test_a_failing_worker_releases_everyone_and_is_heard_of():
    async def spoil(coordinator):
        await asyncio.sleep(0.05)
        await coordinator.fail("out of memory")

    waiting = Barrier([1, 1, 0])
    with pytest.raises(RuntimeError, match="out of memory"):
        run(sample(waiting, lambda i, n: 1.0, lambda i, n: 0.1 if i == 0 else 0.0, spoil))


def test_a_report_that_does_not_fit_is_heard_of():
    async def play():
        coordinator = Coordinator()
        await coordinator.open_step(["a", "b"], UntilSuccess([1, 1]))
        waits = asyncio.create_task(coordinator.first("b"))
        assert await coordinator.first("a") == 1 == await waits
        with pytest.raises(ValueError, match="successes=2"):
            await coordinator.report("a", 2, 2)
        assert await coordinator.report("b", 0, 1) == 0
        await coordinator.close_step()

    with pytest.raises(RuntimeError, match="successes=2"):
        run(play())


def test_sessions_that_verl_never_started_count_as_failed():
    async def play():
        coordinator = Coordinator()
        step = UntilSuccess([2])
        await coordinator.open_step(["a"], step)
        sampling = PromptSampling(step.n_max)
        playing = asyncio.create_task(
            sampling.play(
                lambda: coordinator.first("a"), lambda won, tried: coordinator.report("a", won, tried)
            )
        )
        sampling.abandon()
        await playing
        return await coordinator.close_step()

    step = run(play())
    assert step.launched.tolist() == [2] and step.trials.tolist() == [0]


def test_one_step_after_the_other():
    async def play():
        coordinator = Coordinator()
        for _ in range(2):
            await coordinator.open_step(["a"], UntilSuccess([1]))
            with pytest.raises(RuntimeError, match="another's was going on"):
                await coordinator.open_step(["a"], UntilSuccess([1]))
            assert await coordinator.first("a") == 1
            assert await coordinator.report("a", 1, 1) == 0
            assert (await coordinator.close_step()).launched.tolist() == [1]

    run(play())


def test_the_step_given_stays_as_it_was():
    """Arrays that come from Ray can't be written to."""
    step = UntilSuccess([1, 1])
    for array in vars(step).values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    assert run(sample(step, lambda i, n: 1.0))[0].launched.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["aero", "cero_seq"])
@pytest.mark.parametrize("quorum", [1.0, 0.5])
def test_allocators_in_any_order_of_reports(name, quorum):
    """The step ends within the cap, and every launch is accounted for, whoever is late or fails."""
    options = {"quorum": quorum} if name == "cero_seq" else {}
    allocator = make_allocator(name, rollouts_per_prompt=8, epochs=4, total_budget=4 * 128, **options)
    rng, spent = np.random.default_rng(0), 0
    for _ in range(4):
        step = allocator.begin(range(16), budget=128)
        delays = rng.random((16, step.n_max)) * 0.01
        outcome = lambda i, n: None if rng.random() < 0.03 else float(rng.random() < i / 15)  # noqa: B023, E731
        done, launches = run(sample(step, outcome, lambda i, n: delays[i, n]), 20)  # noqa: B023
        assert done.over and len(launches) == done.launched.sum() <= 128
        allocator.settle(done, done.successes, done.trials)
        spent += len(launches)
        assert allocator.ledger.spent == spent
