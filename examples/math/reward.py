"""Is the last boxed answer right? The reward of the maths scripts: 0.0 or 1.0, judged by math-verify.

    reward.custom_reward_function.path=examples/math/reward.py

verl scores rollouts in threads, where math-verify's own time limit (signal.alarm) raises. Without a limit,
answers as short as (x+1)^{2000} keep SymPy busy for good. So math-verify runs in a child process, one per
reward worker, that ends itself when a judgement takes too long or too much memory. The answer then counts as
wrong, and the next one gets a new child. Integers, the most frequent answers by far, are compared here and
never get there.
"""

import importlib.util
import json
import re
import subprocess
import sys
import threading

MAX_ANSWER = 300  # characters in the box; anything longer is not a final answer and counts as wrong
TIME_LIMIT = 5.0  # seconds for one judgement
MEMORY_LIMIT = 4 << 30  # bytes of address space of the child

if importlib.util.find_spec("math_verify") is None:  # every answer but the simplest would count as wrong
    raise ImportError("the maths reward needs math-verify: pip install math-verify")

_BOX = "\\boxed"
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d*)?)[eE]([+-]?\d{1,4})")
_INTEGER = re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,!;: ]|[ ~])(?=\d{3}(?!\d))")  # what LaTeX sets them apart with
_PERCENT = re.compile(r" *\\?%$")
_WORDS = re.compile(r"\\(?:text|textbf|textrm|mathrm|mbox) ?\{([^{}]*)\}")


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Judge a response, as verl calls it. Never raises, whatever the model wrote.

    Parameters
    ----------
    solution_str : str, the response
    ground_truth : str (or number), the expected answer in LaTeX, without a box
    data_source, extra_info, kwargs : not used

    Returns
    -------
    dict with score and acc, both 0.0 or both 1.0. There is no `pred`, because verl would work out majority
    votes from it, and their bootstrap takes minutes of one core at each validation of 1,500 questions.
    """
    answer = last_boxed(solution_str) or ""
    right = float(bool(answer) and is_equal(str(ground_truth), answer))
    return {"score": right, "acc": right}


def last_boxed(text):
    r"""Return the content of the last \boxed{...} of `text`, with matching braces, or None without one.

    The result is also None if the last box never closes (the response was cut), is empty, or is longer than
    MAX_ANSWER: earlier boxes don't count.

    >>> last_boxed(r"so \boxed{1}, no, \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    start = text.rfind(_BOX)
    if start < 0:
        return None
    start += len(_BOX)
    while text[start : start + 1] == " ":
        start += 1
    if text[start : start + 1] != "{":
        return None
    depth, position = 0, start
    while position < min(len(text), start + MAX_ANSWER + 2):
        char = text[position]
        if char == "\\":
            position += 1  # \{ and \} are no braces
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return text[start + 1 : position].strip() or None
        position += 1
    return None


def is_equal(expected, answer):
    """Return whether two answers (str, LaTeX) are the same. What cannot be judged is not the same."""
    expected, answer = _plain(expected), _plain(answer)
    if expected == answer:
        return bool(expected)
    numbers = _integer(expected), _integer(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return len(expected) <= MAX_ANSWER and len(answer) <= MAX_ANSWER and _judge.is_equal(expected, answer)


def _plain(text):
    r"""Return an answer without what says nothing.

    That is $ and \text{} around it, a full stop and a percent sign behind it, and spaces between thousands.
    Numbers like Minerva Math's 4.5e33 become LaTeX.
    """
    text = text.strip().strip("$").strip().removesuffix(".").rstrip()
    text = _PERCENT.sub("", text).strip("$")
    words = _WORDS.fullmatch(text)
    text = _THOUSANDS.sub("", words[1].strip() if words else text)
    power = _SCIENTIFIC.fullmatch(text)
    return rf"{power[1]} \times 10^{{{int(power[2])}}}" if power else text


def _integer(text):
    text = text.replace("{,}", ",")
    return (
        int(text.replace(",", ""))
        if len(text) <= 40 and _INTEGER.fullmatch(text) and text.isascii()
        else None
    )


class _Judge:
    """Runs math-verify in a child process, started when first needed, for one question at a time."""

    def __init__(self):
        self._child = None
        self._lock = threading.Lock()

    def is_equal(self, expected, answer):
        """Return True if the child says so, and False if it says no or died over the question."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                pipe = subprocess.PIPE
                self._child = subprocess.Popen(
                    [sys.executable, __file__, str(TIME_LIMIT)],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            try:
                self._child.stdin.write(json.dumps([expected, answer]) + "\n")
                self._child.stdin.flush()
                verdict = self._child.stdout.readline()
            except OSError:  # the pipe broke: the child is gone
                verdict = ""
            if not verdict:
                self._child.kill()
                self._child.communicate()
                self._child = None
            return verdict.strip() == "true"


_judge = _Judge()


def _serve(time_limit):
    """Be the child: read [expected, answer] as JSON lines and write true or false, until the input ends."""
    import faulthandler
    import resource

    from math_verify import parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    for line in sys.stdin:
        # A watchdog outside Python also ends a single long arithmetic operation, such as 10^{10^{10}}.
        faulthandler.dump_traceback_later(time_limit, exit=True)
        try:
            # math-verify's time limits use signal.alarm; the watchdog makes them needless.
            expected, answer = (
                parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in json.loads(line)
            )
            same = bool(verify(expected, answer, timeout_seconds=None))
        except Exception:  # SymPy raises almost anything on almost anything; what cannot be judged is wrong
            same = False
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(same), flush=True)


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
