"""At which path does a trainer hand new weights to its vLLM? At one that no other run on the machine has.

verl builds the path of the socket from the number of Ray's job. Every Ray counts its jobs from 1. So two runs
on one machine, each with a Ray of its own, would share the path, and hang or load each other's weights. Here,
the path has the name of Ray's node in it, too, which is random.
"""

import os

import ray


def run_name():
    """Return a name that no other run on this machine has: of Ray's job, and of its node (str)."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{context.get_node_id()[:16]}"


def name_receiver():
    """Have this process, and those that it starts, receive weights at the path with `run_name` in it."""
    os.environ["VERL_RAY_JOB_ID"] = run_name()  # verl puts it where the job's number was


def name_sender(rollout):
    """Have verl's `rollout` (its ServerAdapter) send weights to the path with `run_name` in it."""
    job = ray.get_runtime_context().get_job_id()
    rollout.zmq_handle = rollout.zmq_handle.replace(f"-{job}-", f"-{run_name()}-")
