"""How many GPU hours and how much memory will scripts/qwen2.5-math-*.sh take? Worked out, not measured.

    python scripts/gpu_hours.py                                    # the tables of the documentation
    python scripts/gpu_hours.py --peak 312 --response 500 900      # A100s, and another length of the answers
    python scripts/gpu_hours.py --shape 320x1                      # smaller steps, and more of them

Each assumption is a pair: its favourable end and its unfavourable one. A result is the range between all
favourable and all unfavourable ends. The formulas are in the functions below.
"""

import argparse
from dataclasses import asdict, dataclass, fields

from cero.cli.arguments import above_zero, at_least_one, zero_or_more

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

    def adapter(self, rank):
        """Return the parameters of a LoRA adapter of this rank on all linear layers but the output."""
        width = self.hidden // self.heads * self.kv_heads
        attention = 2 * (self.hidden + self.hidden) + 2 * (self.hidden + width)
        return self.layers * rank * (attention + 3 * (self.hidden + self.ffn))

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
    """What the scripts set for a shape of the step. A test checks that they do."""

    steps: int = 400
    prompts: int = 128
    rollouts: int = 8
    test_freq: int = 50

    @property
    def budget(self):
        return self.steps * self.prompts * self.rollouts


@dataclass(frozen=True)
class Setup:
    """What the scripts set for a size of model on a machine. A test checks that they do."""

    tokens: int  # of a micro-batch
    parallel: int  # GPUs that share a vLLM
    vllm_share: float = 0.6  # of a GPU's memory
    lora_rank: int = 0  # of the adapter that is trained in place of the model; 0: none
    on_host: str | None = None  # "Adam" or "weights": what waits in host memory while vLLM samples


SETTINGS = Settings()
SHAPES = ("128x8", "256x4", "512x2", "1024x1", "320x1")  # prompts x rollouts of a step
# By model, GPUs and GB of each.
SETUPS = {
    ("1.5b", 8, 80): Setup(16384, 1),
    ("1.5b", 4, 80): Setup(16384, 1),
    ("1.5b", 1, 80): Setup(16384, 1, vllm_share=0.5),
    ("1.5b", 1, 24): Setup(4096, 1, lora_rank=32, on_host="weights"),
    ("7b", 8, 80): Setup(8192, 2),
    ("7b", 4, 80): Setup(8192, 2, on_host="Adam"),
}
# Dense bfloat16 TFLOP/s by GB of a GPU: an H100 and an RTX 4090.
PEAKS = {80: 989.0, 24: 165.0}
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


def settings_of(shape, steps=None):
    """Return the `Settings` of a shape, "PROMPTSxROLLOUTS", for the scripts' budget or for `steps` steps."""
    prompts, rollouts = map(int, shape.split("x"))
    rows = prompts * rollouts
    every = SETTINGS.test_freq * SETTINGS.prompts * SETTINGS.rollouts // rows
    return Settings(steps or SETTINGS.budget // rows, prompts, rollouts, every)


def setup_of(name, gpus, capacity):
    """Return the `Setup` of a model on GPUs of `capacity` GB; of a machine not listed, that on 8 of 80 GB."""
    return SETUPS.get((name, gpus, capacity), SETUPS[name, 8, 80])


def gpu_seconds(model, gpus, method, peak, end, a, settings=SETTINGS, lora_rank=0):
    """Return the GPU seconds of a run by phase, under favourable (`end` = 0) or unfavourable assumptions (1).

    With N active parameters and R rollouts of L tokens after prompts of P tokens, sampling takes 2 N R L
    FLOPs, log-probs 2 N R (L + P) and the update 8 N R (L + P): 6 N for forward and backward, and 2 N for
    computing activations again. With a LoRA adapter the update takes 6 N R (L + P), since the backward pass
    computes no gradient of the model's own weights. Each is divided by `peak` FLOP/s times the share of it
    that is reached. FLOPs of attention and of the adapter are left out; they are under a tenth here.
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
        "update": trained * (6 if lora_rank else 8) * model.active / (peak * a.updating[end]),
        "validation": validations * VALIDATION * response * sampling,
        "all else": gpus * steps * a.overhead[end],
    }


def memory(model, setup, gpus, capacity):
    """Return the bytes on each GPU of `capacity` bytes, by item: a dict.

    Weights, gradients and Adam's state are sharded, in float32. With a LoRA adapter the model's own weights
    have neither gradients nor Adam's state. The actor's peak is in the update, where a micro-batch's logits
    are there three times: in bfloat16, in float32, and as gradient. While vLLM samples, the GPU holds vLLM's
    share, and of the actor what does not wait in host memory, without gradients.
    """
    adapter = model.adapter(setup.lora_rank)
    weights = 4 * (model.parameters + adapter) / gpus
    gradients = 4 * (adapter or model.parameters) / gpus
    adam = 2 * gradients
    activations = setup.tokens * model.layers * model.hidden * 2
    logits = setup.tokens * model.vocab * (2 + 4 + 4)
    vllm = setup.vllm_share * capacity
    waiting = {None: 0, "Adam": adam, "weights": weights}[setup.on_host]
    cache = vllm - 2 * (model.parameters + adapter) / setup.parallel
    return {
        "weights": weights,
        "gradients": gradients,
        "Adam": adam,
        "activations": activations,
        "logits": logits,
        # What waited in host memory is back.
        "update": weights + gradients + adam + activations + logits,
        "vllm": vllm,
        "sampling": vllm + weights + adam - waiting,
        "cache_tokens": cache * setup.parallel / model.cache,
    }


def _range(low, high):
    return " - ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in (low, high))


def _table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def hours_table(machines, peak, assumptions, settings=SETTINGS):
    """Return GPU hours by machine and method, and hours on the clock, in Markdown.

    machines : list of (model, GPUs, GB); peak : TFLOP/s of every GPU, or None for `PEAKS`
    """
    # Where a prompt has one rollout, GRPO and AERO have nothing to compare it with.
    methods = {"cero": "CERO, even"}
    if settings.rollouts > 1:
        methods = {"grpo": "GRPO, CERO, even", "aero": "AERO"}
    rows = []
    for name, count, capacity in machines:
        rank = setup_of(name, count, capacity).lora_rank
        flops = (peak or PEAKS.get(capacity, PEAKS[80])) * 1e12
        for method, words in methods.items():
            ends = [
                gpu_seconds(MODELS[name], count, method, flops, end, assumptions, settings, rank)
                for end in (0, 1)
            ]
            phases = [_range(ends[0][phase] / 3600, ends[1][phase] / 3600) for phase in PHASES]
            low, high = (sum(parts.values()) / 3600 for parts in ends)
            machine = [MODELS[name].name, f"{count} x {capacity:g} GB"]
            rows.append([*machine, words, *phases, _range(low, high), _range(low / count, high / count)])
    return _table(["model", "GPUs", "method", *PHASES, "**GPU hours**", "hours"], rows)


def memory_table(machines, settings=SETTINGS):
    """Return GB on each GPU by machine, in Markdown; `machines` as for `hours_table`."""
    rows = []
    for name, count, capacity in machines:
        setup = setup_of(name, count, capacity)
        parts = memory(MODELS[name], setup, count, capacity * GB)
        state = parts["weights"] + parts["gradients"] + parts["Adam"]
        cells = [
            state,
            parts["logits"] + parts["activations"],
            parts["update"],
            parts["vllm"],
            parts["sampling"],
        ]
        rows.append(
            [
                MODELS[name].name,
                f"{count} x {capacity:g} GB",
                *(f"{value / GB:.0f}" for value in cells),
                setup.on_host or "nothing",
                f"{parts['cache_tokens'] / 1e3:,.0f} k",
                settings.prompts * settings.rollouts * setup.parallel // count,
            ]
        )
    head = ["model", "GPUs", "weights, gradients, Adam", "micro-batch", "**peak of the update**", "vLLM"]
    head += ["**peak of sampling**", "waits in host memory", "cache of a vLLM, tokens", "its responses"]
    return _table(head, rows)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--gpus", nargs="+", type=at_least_one, help="of the machine (default: the scripts')")
    parser.add_argument("--memory", type=at_least_one, help="GB of a GPU (default: the scripts')")
    parser.add_argument(
        "--peak",
        type=above_zero,
        help="dense bfloat16 TFLOP/s of a GPU (default: 989, H100; of 24 GB 165, RTX 4090)",
    )
    parser.add_argument(
        "--shape", choices=SHAPES, default=SHAPES[0], help="prompts x rollouts of a step (default: 128x8)"
    )
    parser.add_argument("--steps", type=at_least_one, help="steps of GRPO (default: the scripts')")
    for field in fields(Assumptions):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, nargs=2, type=zero_or_more, default=field.default, metavar=("GOOD", "BAD"))
    args = parser.parse_args(argv)
    assumptions = Assumptions(
        **{field.name: tuple(getattr(args, field.name)) for field in fields(Assumptions)}
    )
    machines = [machine for machine in SETUPS if machine[0] in args.models]
    if args.gpus:
        machines = [(name, gpus, args.memory or 80) for name in args.models for gpus in args.gpus]
    elif args.memory:
        machines = [(*machine[:2], args.memory) for machine in machines if machine[2] == 80]
    settings = settings_of(args.shape, args.steps)
    cards = " and ".join(
        f"{args.peak or PEAKS.get(capacity, PEAKS[80]):g} TFLOP/s and {capacity} GB"
        for capacity in dict.fromkeys(machine[2] for machine in machines)
    )
    print(f"{settings.budget:,} rollouts in {settings.steps:,} steps of {args.shape}, GPUs of {cards}.\n")
    pairs = asdict(assumptions).items()
    print(
        _table(
            ["assumption", "favourable", "unfavourable"],
            [[f"`{k}`", f"{a:g}", f"{b:g}"] for k, (a, b) in pairs],
        )
    )
    print("\nGPU hours by phase, their sum, and hours on the clock:\n")
    print(hours_table(machines, args.peak, assumptions, settings))
    print("\nGB on each GPU:\n")
    print(memory_table(machines, settings))


if __name__ == "__main__":
    main()
