"""How many GPU hours and how much memory will scripts/qwen2.5-math-*.sh take? Worked out, not measured.

    python scripts/gpu_hours.py                                    # the tables of the documentation
    python scripts/gpu_hours.py --peak 312 --response 500 900      # A100s, and another length of the answers

Each assumption is a pair: its favourable end and its unfavourable one. A result is the range between all
favourable and all unfavourable ends. The formulas are in the functions below.
"""

import argparse
from dataclasses import asdict, dataclass, fields, replace

GB = 1e9


@dataclass(frozen=True)
class Model:
    """Sizes as in the model's config.json."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    tied: bool  # input and output embedding are one

    @property
    def _layers(self):
        width = self.hidden // self.heads * self.kv_heads
        attention = 2 * self.hidden**2 + 2 * self.hidden * width + self.hidden + 2 * width
        return self.layers * (attention + 3 * self.hidden * self.ffn + 2 * self.hidden) + self.hidden

    @property
    def parameters(self):
        return self._layers + self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def active(self):
        """Return N, the parameters that a token is multiplied by; the input embedding is only looked up."""
        return self._layers + self.vocab * self.hidden

    @property
    def cache(self):
        """Return the bytes of a token's keys and values, in bfloat16."""
        return 2 * self.layers * self.hidden // self.heads * self.kv_heads * 2


MODELS = {
    "1.5b": Model("Qwen2.5-Math-1.5B", 1536, 28, 12, 2, 8960, 151936, True),
    "7b": Model("Qwen2.5-Math-7B", 3584, 28, 28, 4, 18944, 152064, False),
}


@dataclass(frozen=True)
class Settings:
    """What the scripts set. A test checks that they do."""

    steps: int = 400
    prompts: int = 128
    rollouts: int = 8
    test_freq: int = 50
    vllm_share: float = 0.6

    @property
    def budget(self):
        return self.steps * self.prompts * self.rollouts


@dataclass(frozen=True)
class Size:
    """What the scripts set for a size of model."""

    tokens: int  # of a micro-batch
    parallel: int  # GPUs that share a vLLM


SETTINGS = Settings()
SIZES = {"1.5b": Size(16384, 1), "7b": Size(8192, 2)}
OFFLOADED = {("7b", 4)}  # Adam's state is in host memory
# Questions x samples of a validation: AIME24, AIME25, AMC23; MATH-500, Minerva, OlympiadBench.
VALIDATION = (30 + 30 + 40) * 32 + (500 + 272 + 674) * 4


@dataclass(frozen=True)
class Assumptions:
    """What is assumed, as (favourable, unfavourable) pairs."""

    prompt: tuple = (150, 250)  # tokens of a prompt, mean
    response: tuple = (600, 1500)  # tokens of a response, mean over the run
    generating: tuple = (0.12, 0.04)  # share of peak FLOP/s while vLLM samples, its longest answers included
    scoring: tuple = (0.45, 0.30)  # the same for old log-probs, a forward pass
    updating: tuple = (0.40, 0.25)  # the same for the update, recomputation counted as work
    overhead: tuple = (15, 40)  # seconds a step for weight sync, sleep and wake, rewards, checkpoints
    # AERO alone. `trained` is the share of the rollouts that are trained on: what its paper claims, or all.
    # `more_steps` is a multiple of GRPO's steps: every prompt is sampled to the end, or none is rescued at
    # all, so that half of each step stays unspent.
    trained: tuple = (0.52, 1.0)
    more_steps: tuple = (1.0, 2.0)


PHASES = ("sampling", "log-probs", "update", "validation", "all else")


def gpu_seconds(model, gpus, method, peak, end, a, settings=SETTINGS):
    """Return the GPU seconds of a run by phase, under favourable (`end` = 0) or unfavourable assumptions (1).

    With N active parameters and R rollouts of L tokens after prompts of P tokens, sampling takes 2 N R L
    FLOPs, log-probs 2 N R (L + P) and the update 8 N R (L + P): 6 N for forward and backward, and 2 N for
    computing activations again. Each is divided by `peak` FLOP/s times the share of it that is reached.
    Attention's own FLOPs are left out; they are under a tenth here.
    """
    prompt, response = a.prompt[end], a.response[end]
    aero = method == "aero"
    trained = settings.budget * (a.trained[end] if aero else 1.0) * (prompt + response)
    steps = settings.steps * (a.more_steps[end] if aero else 1.0)
    validations = 1 + steps / settings.test_freq  # one before training
    sampling = 2 * model.active / (peak * a.generating[end])
    return {
        "sampling": settings.budget * response * sampling,
        "log-probs": trained * 2 * model.active / (peak * a.scoring[end]),
        "update": trained * 8 * model.active / (peak * a.updating[end]),
        "validation": validations * VALIDATION * response * sampling,
        "all else": gpus * steps * a.overhead[end],
    }


def memory(model, size, gpus, offloaded, capacity, settings=SETTINGS):
    """Return the bytes on each GPU by item. Weights, gradients and Adam's state are sharded, in float32.

    The actor's peak is in the update, where a micro-batch's logits are there three times: in bfloat16, in
    float32, and as gradient. While vLLM samples, the GPU holds vLLM's share, and of the actor what is not
    offloaded, without gradients.
    """
    shard = 4 * model.parameters / gpus
    adam = 0 if offloaded else 2 * shard
    activations = size.tokens * model.layers * model.hidden * 2
    logits = size.tokens * model.vocab * (2 + 4 + 4)
    vllm = settings.vllm_share * capacity
    return {
        "weights": shard,
        "gradients": shard,
        "Adam": 2 * shard,
        "activations": activations,
        "logits": logits,
        "update": 4 * shard + activations + logits,  # offloaded state is back for the optimizer's step
        "vllm": vllm,
        "sampling": vllm + shard + adam,
        "cache_tokens": (vllm - 2 * model.parameters / size.parallel) * size.parallel / model.cache,
    }


def _range(low, high):
    return " - ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in (low, high))


def _table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def hours_table(models, gpus, peak, assumptions, settings=SETTINGS):
    """Return GPU hours by model, machine and method, and hours on the clock, in Markdown."""
    rows = []
    for name in models:
        for count in gpus:
            for method in ("grpo", "aero"):
                ends = [
                    gpu_seconds(MODELS[name], count, method, peak, end, assumptions, settings)
                    for end in (0, 1)
                ]
                phases = [_range(ends[0][phase] / 3600, ends[1][phase] / 3600) for phase in PHASES]
                low, high = (sum(parts.values()) / 3600 for parts in ends)
                words = {"grpo": "GRPO, CERO", "aero": "AERO"}[method]
                rows.append(
                    [
                        MODELS[name].name,
                        count,
                        words,
                        *phases,
                        _range(low, high),
                        _range(low / count, high / count),
                    ]
                )
    head = ["model", "GPUs", "method", *PHASES, "**GPU hours**", "hours"]
    return _table(head, rows)


def memory_table(models, gpus, capacity, settings=SETTINGS):
    """Return GB on each GPU by model and machine, in Markdown."""
    rows = []
    for name in models:
        for count in gpus:
            offloaded = (name, count) in OFFLOADED
            size = SIZES[name]
            parts = memory(MODELS[name], size, count, offloaded, capacity * GB, settings)
            state = parts["weights"] + parts["gradients"] + parts["Adam"]
            here = settings.prompts * settings.rollouts * size.parallel // count
            cells = [
                state,
                parts["logits"] + parts["activations"],
                parts["update"],
                parts["vllm"],
                parts["sampling"],
            ]
            rows.append(
                [MODELS[name].name, count, *(f"{value / GB:.0f}" for value in cells)]
                + ["host" if offloaded else "GPU", f"{parts['cache_tokens'] / 1e3:,.0f} k", here]
            )
    head = ["model", "GPUs", "weights, gradients, Adam", "micro-batch", "**peak of the update**"]
    head += ["vLLM", "**peak of sampling**", "Adam waits in", "cache of a vLLM, tokens", "its responses"]
    return _table(head, rows)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--gpus", nargs="+", type=int, default=[8, 4], help="of the machine (default: 8 and 4)"
    )
    parser.add_argument(
        "--peak", type=float, default=989.0, help="dense bfloat16 TFLOP/s of a GPU (default: 989, H100)"
    )
    parser.add_argument("--memory", type=float, default=80.0, help="GB of a GPU (default: 80)")
    parser.add_argument(
        "--steps", type=int, default=SETTINGS.steps, help="steps of GRPO (default: the scripts')"
    )
    for field in fields(Assumptions):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, nargs=2, type=float, default=field.default, metavar=("GOOD", "BAD"))
    args = parser.parse_args(argv)
    assumptions = Assumptions(
        **{field.name: tuple(getattr(args, field.name)) for field in fields(Assumptions)}
    )
    settings = replace(SETTINGS, steps=args.steps)
    print(f"{settings.budget:,} rollouts, GPUs of {args.peak:g} TFLOP/s and {args.memory:g} GB.\n")
    pairs = asdict(assumptions).items()
    print(
        _table(
            ["assumption", "favourable", "unfavourable"],
            [[f"`{k}`", f"{a:g}", f"{b:g}"] for k, (a, b) in pairs],
        )
    )
    print("\nGPU hours by phase, their sum, and hours on the clock:\n")
    print(hours_table(args.models, args.gpus, args.peak * 1e12, assumptions, settings))
    print("\nGB on each GPU:\n")
    print(memory_table(args.models, args.gpus, args.memory, settings))


if __name__ == "__main__":
    main()
