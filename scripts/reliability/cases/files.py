"""What is read from a damaged file? Saved states, and logs of runs."""

import json

from cero import available_allocators, make_allocator
from cero.core.state import load_state, save_state

from .damage import damage_bytes, odd
from .life import Life
from .promises import Finding, attempt, need, snapshot


def file_cases(rng, folder):
    """Yield after each case: a saved state, damaged, is refused or is what was saved."""
    names = available_allocators()
    path = folder / "allocator.npz"
    while True:
        name = names[rng.integers(len(names))]
        life = Life(rng, name)
        life.twin = None
        for _ in range(6):
            life.play()
        state = life.allocator.state_dict()
        save_state(state, path)
        whole = path.read_bytes()
        for _ in range(25):
            path.write_bytes(damage_bytes(rng, whole))
            found, error = attempt(lambda: load_state(path), ["allocator.npz"])
            if error is None:
                new = make_allocator(name, **life.options)
                _, error = attempt(
                    lambda new=new, found=found: new.load_state_dict(found),
                    ["state", "allocator", "prompt table"],
                    lambda new=new: snapshot(new),
                )
                need(
                    error is not None or snapshot(new) == snapshot(life.allocator),
                    "a damaged file passes for another state",
                )
            yield name
        path.write_bytes(whole)
        new = make_allocator(name, **life.options)
        new.load_state_dict(load_state(path))
        need(snapshot(new) == snapshot(life.allocator), "a file holds another state than was saved")


def line_cases(rng, folder):
    """Yield after each case: a log with lines that were damaged, or have an odd value, is read and told."""
    from cero.analysis.reading import one_line
    from cero.analysis.report import summarise_run
    from cero.analysis.run import NoStepsError, TrainingRun
    from cero.analysis.runlog import RunLog

    path = folder / "allocations.jsonl"
    while True:
        path.unlink(missing_ok=True)
        log = RunLog(path)
        for step in range(1, 4):
            prompts = [f"{i:016x}" for i in range(3)]
            log.step(
                step, 0, 12, 12 * step, prompts, [4] * 3, [1, 0.5, 4], [4] * 3, {"cero/group/signal": 0.5}
            )
            log.validation(step, 12 * step, {"val-core/x/acc/mean@1": 0.5})
        lines = path.read_bytes().splitlines(keepends=True)
        for _ in range(10):
            changed = list(lines)
            at = int(rng.integers(len(lines)))
            kind = rng.integers(3)
            if kind == 0:
                changed[at] = damage_bytes(rng, lines[at])
            elif kind == 1:
                changed.insert(int(rng.integers(len(lines) + 1)), lines[at])
            else:
                record = json.loads(lines[at])
                record[list(record)[rng.integers(len(record))]] = odd(rng)
                changed[at] = json.dumps(record, default=str).encode() + b"\n"
            path.write_bytes(b"".join(changed))
            told = []
            try:
                summary = summarise_run(TrainingRun.read(path, told.append))
                json.dumps(summary, allow_nan=False)
            except NoStepsError:
                pass
            except Exception as error:
                raise Finding(f"failed with {error!r}") from error
            for message in told:
                need(
                    str(path) in message and "line" in message and message == one_line(message),
                    f"told {message!r}",
                )
            yield "lines"
