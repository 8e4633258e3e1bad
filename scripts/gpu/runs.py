"""Starts, follows and stops runs of train.sh that share one GPU.

    python3 scripts/gpu/runs.py start --steps 150 fresh/grpo/1/3e-5 fresh/cero/1/3e-5
    python3 scripts/gpu/runs.py follow --seconds 300
    python3 scripts/gpu/runs.py stop fresh/grpo/1/3e-5                    (all, where none is named)

A run is named SET/ARM/SEED/RATE: the set of questions, the arm of train.sh, the seed and the learning rate.
`start` returns at once; the runs go on when this program and its shell have ended. With --seconds it stays,
follows them, and stops them when the time is over; with --one-by-one, too, each has its share of the time
and the card for itself. What they write is in $GPU/runs (GPU: /opt/gpu).

Each run has process ids, a loopback network, a /tmp and a /dev/shm of its own. verl's socket for the weights
has a fixed name in /tmp, runs that start together may be given the same port, and of a run that is killed
nothing is left. This needs root.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

GPU = Path(os.environ.get("GPU", "/opt/gpu"))
sys.path[:0] = [str(Path(__file__).resolve().parent), str(GPU / "project")]
import logs  # noqa: E402

from cero.cli.arguments import above_zero, at_least_one  # noqa: E402

ARMS = "grpo grpo-2 cero cero-pooled cero-variance even even-own aero cero_seq mapp cero_published".split()
RUNS = GPU / "runs"
HERE = Path(__file__).resolve().parent
LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
"""
INSIDE = """
mount -t tmpfs -o size=24g tmpfs /tmp && mount -t tmpfs -o size=24g tmpfs /dev/shm
python3 -c "$LOOPBACK_UP"
exec bash "$0" "$@"
"""
ERROR = re.compile(r"^\S*(?:Error|Exception): .{0,200}", re.MULTILINE)


def run_name(text):
    """Return the name of a run, SET/ARM/SEED/RATE. Raises argparse.ArgumentTypeError."""
    if not (found := re.fullmatch(r"[\w.-]+/([\w-]+)/\d+/([\d.e-]+)", text)):
        raise argparse.ArgumentTypeError(f"{text!r}: SET/ARM/SEED/RATE, for example fresh/grpo/1/3e-5")
    arm(found[1])
    rate(found[2])
    return text


def arm(text):
    """Return an arm of train.sh. Raises argparse.ArgumentTypeError."""
    if text not in ARMS:
        raise argparse.ArgumentTypeError(f"{text!r}: {', '.join(ARMS[:-1])} or {ARMS[-1]}")
    return text


def rate(text):
    """Return a learning rate as it was written. Raises argparse.ArgumentTypeError."""
    above_zero(text)
    return text


def parse_arguments(argv=None):
    """Return the command line's arguments."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = top.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("start", help="start runs")
    begin.add_argument("runs", nargs="+", type=run_name, metavar="SET/ARM/SEED/RATE")
    begin.add_argument("--steps", type=at_least_one, required=True, help="of each run")
    begin.add_argument("--seconds", type=above_zero, help="follow the runs so long, then stop them")
    begin.add_argument("--one-by-one", action="store_true", help="one at a time; with --seconds")
    watch = commands.add_parser("follow", help="say every 20 s what the runs have done")
    watch.add_argument("runs", nargs="*", type=run_name, help="without: all")
    watch.add_argument("--seconds", type=above_zero, required=True, help="return then, or when all ended")
    end = commands.add_parser("stop", help="kill runs")
    end.add_argument("runs", nargs="*", type=run_name, help="without: all")
    arguments = top.parse_args(argv)
    if arguments.command == "start" and arguments.one_by_one and arguments.seconds is None:
        begin.error("--one-by-one: add --seconds")
    return arguments


def wait_until_ready():
    """Wait until stage.sh has put everything in its place; return when that began, by time.monotonic."""
    began = time.monotonic()
    if not (GPU / "ready").exists():
        print(f"waiting for {GPU / 'ready'}, which stage.sh writes", flush=True)
    while not (GPU / "ready").exists():
        time.sleep(0.2)
    print(f"{time.strftime('%T')} ready after {time.monotonic() - began:.1f} s", flush=True)
    return began


def started():
    """Return the names of all runs that were started."""
    return sorted(str(path.parent.relative_to(RUNS)) for path in RUNS.glob("*/*/*/*/pid"))


def is_alive(run):
    """Return whether the run's first process is there."""
    try:
        state = Path("/proc", (RUNS / run / "pid").read_text(), "stat").read_text()
    except (OSError, ValueError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def start(run, steps):
    """Start a run in the background."""
    questions, arm, seed, rate = run.split("/")
    out = RUNS / run
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "SEED": seed,
        "LR": rate,
        "TASK": str(GPU / "task"),
        "PYTHONPATH": f"{GPU / 'project'}:{GPU / 'site'}",
        "LOOPBACK_UP": LOOPBACK_UP,
        "VLLM_HOST_IP": "127.0.0.1",
        "NCCL_SOCKET_IFNAME": "lo",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    alone = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child"]
    with open(out / "start.log", "w") as log:
        process = subprocess.Popen(
            [*alone, "bash", "-euc", INSIDE, HERE / "train.sh", arm, questions, out, str(steps)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (out / "pid").write_text(str(process.pid))


def stop(runs):
    """Kill runs, and wait until they are gone."""
    for run in runs:
        if is_alive(run):
            os.kill(int((RUNS / run / "pid").read_text()), signal.SIGKILL)
    while any(is_alive(run) for run in runs):
        time.sleep(0.1)


def metrics_of(run):
    """Return what verl has logged of a run, step by step: a list of dicts."""
    return [
        record["data"] | {"step": record["step"]}
        for path in (RUNS / run).glob("cero/*.jsonl")
        if path.name != "allocations.jsonl"
        for record in logs.read_records(path)
    ]


def held_out(run):
    """Return the mean accuracy over families of each validation of a run: dict of step -> float."""
    validations = ((record["step"], logs.held_out(record)) for record in metrics_of(run))
    return {step: statistics.mean(right.values()) for step, right in validations if right}


def summary(run):
    """Return one line on a run: steps, seconds a step, share of right rollouts, validations, errors."""
    records = metrics_of(run)
    steps = [r for r in records if "timing_s/step" in r]
    line = f"{run:24s} {len(steps):4d} steps"
    if steps:
        last = steps[-10:]
        seconds = statistics.median(r["timing_s/step"] for r in last)
        score = statistics.mean(r["critic/score/mean"] for r in last)
        kl = max(abs(r.get("actor/ppo_kl", 0.0)) for r in last)
        line += f"  {seconds:5.2f} s  right {100 * score:5.1f} %  kl {kl:.0e}"
    values = [f"{step}:{100 * accuracy:.1f}" for step, accuracy in held_out(run).items()]
    line += "  held out " + " ".join(values) if values else ""
    if not is_alive(run):
        log = RUNS / run / "train.log"
        text = log.read_text(errors="replace") if log.exists() else "no log: see start.log"
        errors = ERROR.findall(re.sub(r"\x1b\[[0-9;]*m|^\([^)]*\) ?", "", text, flags=re.MULTILINE))
        line += "  ENDED" + "".join(f"\n    {error}" for error in dict.fromkeys(errors[-3:]))
    return line


def card():
    """Return the card's memory and use, the machine's load and free memory, as text."""
    try:
        text = logs.ask_card("memory.used,utilization.gpu")
    except OSError:
        text = "no GPU"
    free = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)
    return f"{text}, load {os.getloadavg()[0]:.1f}, {int(free) / 2**20:.0f} GB free"


def follow(runs, seconds):
    """Print a line on each run every 20 s, until all have ended or the time is over."""
    began = time.monotonic()
    while True:
        until = min(time.monotonic() + 20, began + seconds)
        while time.monotonic() < until and any(is_alive(run) for run in runs):
            time.sleep(0.5)
        print(f"-- {time.strftime('%T')}, {time.monotonic() - began:.0f} s, {card()}")
        print("\n".join(summary(run) for run in runs), flush=True)
        if time.monotonic() >= began + seconds or not any(is_alive(run) for run in runs):
            return


def main(argv=None):
    """Do what the command line says; return the exit code."""
    arguments = parse_arguments(argv)
    if arguments.command == "stop":
        stop(arguments.runs or started())
    elif arguments.command == "follow":
        follow(arguments.runs or started(), arguments.seconds)
    else:
        began = wait_until_ready()
        parts = [[run] for run in arguments.runs] if arguments.one_by_one else [arguments.runs]
        for number, part in enumerate(parts):
            for run in part:
                start(run, arguments.steps)
            if arguments.seconds is not None:
                left = arguments.seconds - (time.monotonic() - began)
                follow(part, left / (len(parts) - number))
                stop(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
