"""Do the command lines that scripts/qwen2.5-math-*.sh run compose, validate, and spend what they say?"""

import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.import_utils import load_class_from_fqn

from cero.verl.preflight import Preflight
from cero.verl.reading import read_settings

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("qwen2.5-math-*.sh"))
SMALL = SCRIPTS[0]
PAGE = ROOT / "docs" / "how-to" / "gpus-and-qwen2.5-math.md"
METHODS = {"grpo": "uniform", "cero": "cero", "even": "cero", "aero": "aero"}  # and their allocators
USUAL = {"grpo": "128x8", "cero": "1024x1", "even": "1024x1", "aero": "128x8"}  # shapes, if none is asked for
# Shapes of a step; those with a single rollout of a prompt are for cero's estimator.
GROUPS, SINGLES = ("128x8", "256x4", "512x2"), ("1024x1", "320x1")
SHAPES = [
    (method, shape)
    for method in METHODS
    for shape in GROUPS + SINGLES
    if method in ("cero", "even") or shape in GROUPS
]
ONE_CARD = ("--gpus", "1")
SMALL_CARD = (*ONE_CARD, "--memory", "24")
MACHINES = [(script, ("--gpus", gpus)) for script in SCRIPTS for gpus in ("8", "4")]
MACHINES += [(SMALL, ONE_CARD), (SMALL, SMALL_CARD)]
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
every_machine = pytest.mark.parametrize(
    ("script", "machine"),
    MACHINES,
    ids=[f"{script.stem}{'-'.join(words)}" for script, words in MACHINES],
)


def size_of(config):
    """Return prompts and rollouts of a prompt in a step."""
    return config.data.train_batch_size, config.actor_rollout_ref.rollout.n


def module(path):
    spec = importlib.util.spec_from_file_location(f"math_scripts_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look themselves up there
    spec.loader.exec_module(loaded)
    return loaded


def run(script, *args, path="", **environment):
    """Run the script and return the completed process; `path` is put first into PATH."""
    names = ("MODEL", "DATA", "OUT", "NODES", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if key not in names} | environment
    env["PATH"] = f"{path}:{env['PATH']}"
    return subprocess.run(["bash", script, *args], env=env, capture_output=True, text=True)


@cache
def printed(script, *args, **environment):
    """Return what the script prints with --dry-run."""
    done = run(script, *args, "--dry-run", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def overrides_of(script, *args, **environment):
    """Return the arguments with which the script would start verl, as --dry-run prints them; list of str."""
    path, *words = shlex.split(printed(script, *args, **environment))
    assert path.startswith(f"PYTHONPATH={ROOT}/examples/math")
    assert words[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    return words[3:]


def checked(composed, config):
    """Check what verl and the plugin check before anything is loaded; return the allocator."""
    composed.check(config)
    Preflight().on_job_start(config)
    return read_settings(config).make_allocator()


def required_multiple(config):
    """Return the number to a multiple of which verl pads a batch's rows."""
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    trainer = SimpleNamespace(config=config, use_critic=need_critic(config), global_steps=1)
    return PPOTrainer._get_required_batch_multiple(trainer, gpus)


@pytest.fixture
def prepare(monkeypatch):
    """examples/math/prepare.py; other examples have a reward.py, too."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "math")
    monkeypatch.delitem(sys.modules, "reward", raising=False)
    loaded = module(ROOT / "examples" / "math" / "prepare.py")
    monkeypatch.delitem(sys.modules, "reward")
    return loaded


@every_script
def test_is_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert len(SCRIPTS) == 2
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-x", "-P", ROOT, script], check=True)


@every_script
def test_dry_run_prints_what_is_run(script, tmp_path):
    """The first `python` in PATH only prints its arguments."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$PYTHONPATH" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    arguments = ["aero", "--gpus", "4", "a.b=${c}", "d=[1, 2]"]
    done = run(script, *arguments, path=tmp_path, PYTHONPATH="mine")
    path, *words = done.stdout.split("\0")[:-1]
    assert path == f"{ROOT}/examples/math:mine"
    assert words == ["-m", "verl.trainer.main_ppo", *overrides_of(script, *arguments)]
    assert words[-2:] == ["a.b=${c}", "d=[1, 2]"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "the first word is the method"),
        (("ppo",), "grpo, cero, even or aero"),
        (("--gpus", "4"), "the first word is the method"),
        (("cero", "--gpus", "3"), "--gpus 3: 8, 4 or 1"),
        (("cero", "--gpus"), "--gpus : 8, 4 or 1"),
        (("cero", "--shape", "64x16"), "--shape 64x16: 128x8, 256x4, 512x2, 1024x1 or 320x1"),
        (("cero", "--shape"), "--shape : 128x8"),
        (("grpo", "--shape", "1024x1"), "--shape 1024x1: grpo compares the rollouts of a prompt"),
        (("aero", "--gpus", "4", "--shape", "320x1"), "--shape 320x1: aero explores with half"),
        (("cero", "--memory", "16", "--gpus", "1"), "--memory 16: 80 or 24"),
        (("cero", "--memory"), "--memory : 80 or 24"),
        (("cero", "--memory", "24"), "--memory 24: only with --gpus 1"),
    ],
)
def test_usage(arguments, reason):
    done = run(SMALL, *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"{SMALL}: ") and reason in done.stderr.splitlines()[0]
    # All words are explained.
    for word in (*METHODS, *GROUPS, *SINGLES, "--shape", "--gpus", "--memory", "--dry-run", "8 | 4 | 1"):
        assert word in done.stderr


def test_large_model_on_one_card_is_refused():
    done = run(SCRIPTS[1], "cero", *ONE_CARD, "--dry-run")
    assert done.returncode == 2 and not done.stdout
    assert "--gpus 1: weights, gradients and Adam take 122 GB; use the 1.5B" in done.stderr


def has_the_budget(config, allocator):
    """Check the budget, which is that of GRPO's 400 steps, and that there are steps enough to spend it."""
    prompts, rollouts = size_of(config)
    steps = config.trainer.total_training_steps
    least = rollouts  # least mean rollouts that a step spends on a prompt
    if config.allocator.name == "aero":
        least, most = allocator._bounds()
        assert most == rollouts
    assert config.trainer.total_rollouts == 409_600
    assert steps * prompts * least == 409_600
    # The steps end the run, not the epochs, on MATH's harder levels as well.
    assert config.trainer.total_epochs * (8_000 // prompts) >= steps
    assert config.trainer.save_freq == config.trainer.test_freq
    assert config.trainer.test_freq * prompts * rollouts == 51_200


def validated(script, composed, method, *words):
    """Check a run's config, whatever its machine and shape; return the config."""
    config = composed(*overrides_of(script, method, *words))
    allocator = checked(composed, config)
    assert config.allocator.name == allocator.name == METHODS[method]
    assert config.cero.keep.rule == ("aero" if method == "aero" else "all")
    assert config.algorithm.cero.advantage == ("aero" if method == "aero" else "posterior")
    assert config.algorithm.adv_estimator == ("grpo" if method == "grpo" else "cero")
    assert config.actor_rollout_ref.model.path.lower() == f"qwen/{script.stem}"
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"
    assert not need_reference_policy(config) and not need_critic(config)
    has_the_budget(config, allocator)
    # Nothing is padded, nothing is left over.
    gpus = config.trainer.n_gpus_per_node
    assert config.trainer.nnodes == 1
    prompts, rollouts = size_of(config)
    mini = config.actor_rollout_ref.actor.ppo_mini_batch_size
    assert prompts * rollouts % required_multiple(config) == 0
    assert prompts % mini == 0 and mini * rollouts == min(512, prompts * rollouts)
    assert mini * rollouts % gpus == 0
    assert gpus % config.actor_rollout_ref.rollout.tensor_model_parallel_size == 0
    # Qwen2.5-Math's context holds prompt and response, and a micro-batch holds one such row.
    rollout = config.actor_rollout_ref.rollout
    assert rollout.prompt_length + rollout.response_length == 4096
    assert config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu % 4096 == 0
    return config


@every_machine
@pytest.mark.parametrize("method", METHODS)
def test_composes_and_validates(script, composed, machine, method):
    config = validated(script, composed, method, *machine)
    assert config.trainer.n_gpus_per_node == int(machine[1])
    adapter = "-lora" if machine == SMALL_CARD else ""
    name = f"{script.stem}-{method}-{USUAL[method]}{adapter}"
    assert config.trainer.experiment_name == name
    assert config.trainer.default_local_dir == f"runs/math/{name}"
    assert "{}x{}".format(*size_of(config)) == USUAL[method]


@pytest.mark.parametrize(("method", "shape"), SHAPES)
def test_every_shape_composes_and_validates(composed, method, shape):
    config = validated(SMALL, composed, method, "--shape", shape)
    assert config.trainer.experiment_name == f"{SMALL.stem}-{method}-{shape}"
    assert "{}x{}".format(*size_of(config)) == shape


def test_methods_differ_in_nothing_else():
    base, *others = ({*overrides_of(SMALL, method, "--shape", "128x8")} for method in METHODS)
    for other in others:
        assert {override.split("=")[0] for override in base ^ other} <= {
            "+recipe",
            "allocator",
            "allocator.n_min",
            "allocator.n_max",
            "trainer.total_training_steps",
            "trainer.experiment_name",
        }


def test_shapes_differ_only_in_shape():
    base, *others = ({*overrides_of(SMALL, "cero", "--shape", shape)} for shape in GROUPS + SINGLES)
    for other in others:
        assert {override.split("=")[0] for override in base ^ other} <= {
            "data.train_batch_size",
            "actor_rollout_ref.rollout.n",
            "actor_rollout_ref.actor.ppo_mini_batch_size",
            "trainer.total_training_steps",
            "trainer.test_freq",
            "trainer.save_freq",
            "trainer.experiment_name",
        }


def test_sizes_differ_only_in_size():
    one, other = ({*overrides_of(script, "cero", "--gpus", "4")} for script in SCRIPTS)
    assert {override.split("=")[0] for override in one ^ other} == {
        "actor_rollout_ref.model.path",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
        "actor_rollout_ref.rollout.tensor_model_parallel_size",
        "trainer.experiment_name",
    }


def test_one_card_of_80_gb_trains_all_parameters(composed):
    """What it trains, and how, is that of 8 GPUs."""
    one, many = (composed(*overrides_of(SMALL, "cero", "--gpus", gpus)) for gpus in ("1", "8"))
    for section in ("actor.optim", "actor.ppo_mini_batch_size", "actor.ppo_max_token_len_per_gpu", "model"):
        assert OmegaConf.select(one.actor_rollout_ref, section) == OmegaConf.select(
            many.actor_rollout_ref, section
        )
    assert one.actor_rollout_ref.model.lora_rank == 0
    assert one.actor_rollout_ref.rollout.gpu_memory_utilization == 0.5


def test_one_card_of_24_gb_trains_an_adapter(composed):
    config = composed(*overrides_of(SMALL, "cero", *SMALL_CARD)).actor_rollout_ref
    assert config.model.lora_rank == config.model.lora_alpha == 32
    assert config.model.target_modules == "all-linear"
    assert config.actor.optim.lr == 1e-5
    assert config.rollout.load_format == "safetensors" and config.actor.fsdp_config.param_offload
    assert config.actor.ppo_max_token_len_per_gpu == config.rollout.log_prob_max_token_len_per_gpu == 4096


@pytest.mark.parametrize("machine", [ONE_CARD, SMALL_CARD])
def test_one_card_starts_as_was_seen_to_work(composed, machine):
    """The settings of a start on one GPU are those of scripts/step_cost.py and scripts/gpu/train.sh."""
    config = composed(*overrides_of(SMALL, "cero", *machine))
    graphs = config.actor_rollout_ref.rollout.engine_kwargs.vllm.compilation_config
    assert f"compilation_config='{graphs}'" in (ROOT / "scripts" / "step_cost.py").read_text()
    assert graphs in (ROOT / "scripts" / "gpu" / "train.sh").read_text()
    actor = config.actor_rollout_ref.actor
    assert not actor.use_torch_compile and not actor.fsdp_config.use_torch_compile
    assert actor.fsdp_config.entropy_from_logits_with_chunking
    assert config.actor_rollout_ref.rollout.agent.num_workers == 2 and config.reward.num_workers == 4
    assert config.transfer_queue.backend.SimpleStorage.num_data_storage_units == 2
    assert config.data.dataloader_num_workers == 0
    assert not config.ray_kwargs.ray_init.include_dashboard


@every_script
def test_baseline_is_grpo(script, composed):
    config = composed(*overrides_of(script, "grpo"))
    allocator = checked(composed, config)
    prompts, rollouts = size_of(config)
    assert allocator.allocate(range(prompts), budget=prompts * rollouts).tolist() == [rollouts] * prompts


@pytest.mark.parametrize("shape", GROUPS + SINGLES)
def test_control_allocates_nothing(composed, shape):
    """Whatever is known of the prompts, `even` gives each the same."""
    allocator = checked(composed, composed(*overrides_of(SMALL, "even", "--shape", shape)))
    prompts, rollouts = map(int, shape.split("x"))
    for _ in range(2):
        counts = allocator.allocate(range(prompts), budget=prompts * rollouts)
        assert counts.tolist() == [rollouts] * prompts
        allocator.observe(range(prompts), np.arange(prompts) % (rollouts + 1), counts)


@pytest.mark.slow
@every_script
def test_further_overrides_win(script, composed):
    words = ("allocator=knapsack", "allocator.n_max=16", "data.train_batch_size=64", "trainer.nnodes=2")
    config = composed(*overrides_of(script, "cero", "--shape", "128x8", *words))
    assert checked(composed, config).n_max == 16
    assert config.data.train_batch_size == 64 and config.trainer.nnodes == 2
    assert config.trainer.experiment_name == f"{script.stem}-knapsack-128x8"


@every_script
def test_environment(script, composed, tmp_path):
    places = {name: str(tmp_path / name.lower()) for name in ("MODEL", "DATA", "OUT")}
    config = composed(*overrides_of(script, "cero", NODES="4", **places))
    assert config.actor_rollout_ref.model.path == places["MODEL"]
    assert config.data.train_files == f"{places['DATA']}/train.parquet"
    assert all(file.startswith(places["DATA"]) for file in config.data.val_files)
    assert config.trainer.default_local_dir.startswith(places["OUT"])
    assert config.trainer.nnodes == 4


@every_script
def test_reward_loads_and_fits_the_range(script, composed):
    config = composed(*overrides_of(script, "aero"))
    score = get_custom_reward_fn(config)
    score = partial(score, data_source="math_dapo", ground_truth="3")
    results = [score(solution_str=text)["score"] for text in ("", r"\boxed{3}", r"\boxed{\frac{6}{2}}")]
    assert results == [*config.cero.success.range, 1] and config.cero.success.key is None


@every_script
def test_commands_of_the_header(script, composed, prepare):
    """The header's commands work: prepare.py takes the options, writes the files, and overrides compose."""
    header = script.read_text().split("set -euo pipefail")[0]
    commands = re.findall(r"^# {3}(\S.*?)(?: {2,}#.*)?$", header, flags=re.MULTILINE)
    runs = [shlex.split(command) for command in commands if script.name in command]
    prepares = [command for command in commands if "prepare.py" in command]
    assert {words[2] for words in runs} == set(METHODS) and len(prepares) == 1
    for words in runs:
        assert words[:2] == ["bash", f"scripts/{script.name}"]
        if "--cfg" not in words:
            checked(composed, composed(*overrides_of(script, *words[2:])))
    path, *options = shlex.split(prepares[0])[1:]
    assert (ROOT / path).samefile(prepare.__file__)
    out = prepare.arguments().parse_args(options).out
    config = composed(*overrides_of(script, "grpo"))
    assert config.data.train_files == f"{out}/train.parquet"
    assert list(config.data.val_files) == [f"{out}/{name}.parquet" for name in prepare.VALIDATION]


def test_commands_of_the_page(composed, monkeypatch):
    """Those of the documentation compose, and pass verl's and this project's checks; none is left out."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "math")
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if "bash scripts/qwen" in line]
    seen = set()
    for command in commands:
        at = command.index("bash")
        environment = dict(word.split("=", 1) for word in command[:at])
        script, *words = command[at + 1 :]
        words = [word for word in words if word not in ("--dry-run", "--cfg", "job", "--resolve")]
        config = composed(*overrides_of(ROOT / script, *words, **environment))
        checked(composed, config)
        callback = load_class_from_fqn(config.trainer.checkpoint_callback_class, "callback")
        assert callback(config).budget == config.trainer.total_rollouts
        seen |= {script, *words}
    assert len(commands) >= 12
    assert seen >= {f"scripts/{script.name}" for script in SCRIPTS} | {*METHODS, *SMALL_CARD, "--shape"}


def test_table_of_shapes_is_of_these_scripts(composed):
    """Steps, updates and visits on the page, for about 17,400 questions."""
    table = PAGE.read_text(encoding="utf-8").split("## One budget")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\d+x\d+)` \|(.*)\|$", table, re.MULTILINE)
    assert [shape for shape, _ in rows] == [*GROUPS, *SINGLES]
    for shape, cells in rows:
        config = composed(*overrides_of(SMALL, "cero", "--shape", shape))
        prompts, rollouts = size_of(config)
        steps, mini = config.trainer.total_training_steps, config.actor_rollout_ref.actor.ppo_mini_batch_size
        expected = [
            f"{steps:,}",
            f"{steps * prompts // mini:,} of {mini * rollouts}",
            f"{17_400 // prompts}",
            f"{steps * prompts / 17_400:.0f}",
            f"{config.trainer.test_freq} steps",
        ]
        assert [cell.strip() for cell in cells.split("|")][: len(expected)] == expected


# ---- the end of a run ----------------------------------------------------------------------------


class Trainer:
    """Stand in for verl's trainer, as far as its own `fit` needs one.

    Its steps cost as many rollouts as `costs(step)` says; it notes validations and checkpoints.
    """

    def __init__(self, config, callback, costs):
        self.config, self.checkpoint_callback, self.costs = config, callback, costs
        self.global_steps, self.total_training_steps = 0, config.trainer.total_training_steps
        self.steps_per_epoch, self.parameter_sync_step, self.trainer_mode = 135, 1, "sync"
        self.allocator = SimpleNamespace(ledger=SimpleNamespace(spent=0))
        self.done = []  # (what, step)

    def step(self, metrics, timing_raw):
        self.allocator.ledger.spent += self.costs(self.global_steps)
        return SimpleNamespace(keys=[], partition_id="train")

    def _save_checkpoint(self):
        self.done.append(("save", self.global_steps))
        self.checkpoint_callback.on_save(
            trainer=self, global_step=self.global_steps, checkpoint_dir="", async_save=False
        )

    def _validate(self):
        self.done.append(("validate", self.global_steps))
        return {"val-core/x": 0.0}

    def _consume_sync_metrics(self):
        return {}

    def __getattr__(self, name):  # hooks, profiling, metrics
        return lambda *args, **kwargs: None


@pytest.fixture
def fit(composed, monkeypatch):
    """`fit(method, costs, *words, step=0, spent=0)`: the trainer after the script's run by verl's loop."""
    from verl.trainer.ppo.v1 import trainer_base

    monkeypatch.syspath_prepend(ROOT / "examples" / "math")
    monkeypatch.setattr(trainer_base, "Tracking", lambda **kwargs: SimpleNamespace(log=lambda **kwargs: None))
    monkeypatch.setattr(trainer_base, "tq", SimpleNamespace(kv_clear=lambda **kwargs: None))
    monkeypatch.setattr(trainer_base, "pprint", lambda text: None)

    def fit(method, costs, *words, step=0, spent=0):
        config = composed(*overrides_of(SCRIPTS[0], method, *words))
        callback = load_class_from_fqn(config.trainer.checkpoint_callback_class, "callback")(config)
        trainer = Trainer(config, callback, costs)
        trainer.global_steps, trainer.allocator.ledger.spent = step, spent
        PPOTrainer.fit(trainer, None)
        return trainer

    return fit


def last_step(trainer):
    step = trainer.global_steps - 1
    assert trainer.done[-2:] == [("save", step), ("validate", step)]
    return step


@pytest.mark.parametrize(("shape", "steps"), [("1024x1", 400), ("512x2", 400), ("320x1", 1280)])
def test_every_shape_ends_at_the_budget(fit, shape, steps):
    prompts, rollouts = map(int, shape.split("x"))
    trainer = fit("cero", lambda step: prompts * rollouts, "--shape", shape)
    assert (last_step(trainer), trainer.allocator.ledger.spent) == (steps, 409_600)


def test_grpo_ends_with_its_steps(fit):
    trainer = fit("grpo", lambda step: 1024)
    assert (last_step(trainer), trainer.allocator.ledger.spent) == (400, 409_600)


@pytest.mark.slow
def test_aero_ends_at_the_budget(fit):
    """Steps may cost the same, less and less, or more and more: the run ends near the budget all the same."""
    trainer = fit("aero", lambda step: 640)
    assert (last_step(trainer), trainer.allocator.ledger.spent) == (640, 409_600)
    for costs in (lambda step: int(900 - 0.5 * step), lambda step: int(600 + 0.4 * step)):
        trainer = fit("aero", costs)
        assert 400 < last_step(trainer) < 800
        assert trainer.allocator.ledger.spent == pytest.approx(409_600, rel=0.01)
    rng = np.random.default_rng(0)
    trainer = fit("aero", lambda step: int(rng.integers(512, 800)))
    assert last_step(trainer) and trainer.allocator.ledger.spent == pytest.approx(409_600, rel=0.01)


def test_least_costs_use_all_steps(fit):
    trainer = fit("aero", lambda step: 512)
    assert (last_step(trainer), trainer.allocator.ledger.spent) == (800, 409_600)


@pytest.mark.slow
def test_a_resumed_run_ends_there_too(fit):
    trainer = fit("aero", lambda step: 640, step=350, spent=350 * 640)
    assert (last_step(trainer), trainer.allocator.ledger.spent) == (640, 409_600)
    # Resumed at the last checkpoint, where the end was set: that is forgotten, and it ends at the next one.
    trainer = fit("aero", lambda step: 640, step=600, spent=600 * 640)
    assert (last_step(trainer), trainer.allocator.ledger.spent) == (650, 650 * 640)


def test_more_rollouts_a_prompt_are_fewer_steps(fit):
    trainer = fit("grpo", lambda step: 2048, "actor_rollout_ref.rollout.n=16")
    assert (last_step(trainer), trainer.allocator.ledger.spent) == (200, 409_600)


def test_budget_out_of_reach_is_refused(fit):
    with pytest.raises(
        ValueError, match=r"total_rollouts=409600.*train_batch_size=64.*raise trainer.total_training"
    ):
        fit("cero", None, "data.train_batch_size=64")


# ---- data ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_validation_samples_each_set_as_its_file_says(prepare, tmp_path):
    """prepare.py's files go through verl's data set and validation, which reports mean@32 and mean@4."""
    from torch.utils.data import DataLoader
    from verl.trainer.ppo.metric_utils import process_validation_metrics
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    files, items = [], [prepare.Item("What?", "1"), prepare.Item("Why?", "2")]
    for name, source in prepare.VALIDATION.items():
        files.append(str(tmp_path / f"{name}.parquet"))
        prepare.write(items, files[-1], source.data_source, "test", source.samples)
    config = OmegaConf.create({"cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts": False})
    dataset = RLHFDataset(files, tokenizer=None, config=config)
    (rows,) = DataLoader(dataset, batch_size=100, collate_fn=collate_fn)
    batch = tu.get_tensordict(rows)
    sources, uids, acc, expected = [], [], [], {}
    for index, (source, samples) in enumerate(zip(rows["data_source"], rows["__rollout_n__"], strict=True)):
        value = batch["__rollout_n__"][index]
        n = len(range(getattr(value, "data", value)))  # as verl's agent loop counts
        assert n == int(samples) == prepare.VALIDATION[source].samples
        expected[source, str(index)] = n
        sources += [source] * n
        uids += [str(index)] * n
        acc += [float(i == 0) for i in range(n)]
    metrics = process_validation_metrics(
        sources, uids, {"acc": acc, "reward": acc}, expected_acc_counts=expected
    )
    assert list(metrics) == ["aime24", "aime25", "amc23", "math500", "minerva", "olympiad"]
    means = {
        name: metrics[name]["acc"][f"mean@{source.samples}"] for name, source in prepare.VALIDATION.items()
    }
    assert means == {name: 1 / source.samples for name, source in prepare.VALIDATION.items()}
    assert {source.samples for source in prepare.VALIDATION.values()} == {32, 4}


# ---- scripts/gpu_hours.py ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpu_hours():
    return module(ROOT / "scripts" / "gpu_hours.py")


@every_machine
def test_gpu_hours_are_of_these_scripts(composed, gpu_hours, script, machine):
    config = composed(*overrides_of(script, "grpo", *machine))
    name, gpus = script.stem.removeprefix("qwen2.5-math-"), int(machine[1])
    rollout, actor, model = (
        config.actor_rollout_ref.rollout,
        config.actor_rollout_ref.actor,
        gpu_hours.MODELS[name],
    )
    assert gpu_hours.SETTINGS == gpu_hours.Settings(
        steps=config.trainer.total_training_steps,
        prompts=config.data.train_batch_size,
        rollouts=rollout.n,
        test_freq=config.trainer.test_freq,
    )
    fsdp = actor.fsdp_config
    places = {(False, False): None, (False, True): "Adam", (True, False): "weights"}
    assert gpu_hours.SETUPS[name, gpus, 24 if machine == SMALL_CARD else 80] == gpu_hours.Setup(
        tokens=actor.ppo_max_token_len_per_gpu,
        parallel=rollout.tensor_model_parallel_size,
        vllm_share=rollout.gpu_memory_utilization,
        lora_rank=config.actor_rollout_ref.model.lora_rank,
        on_host=places[fsdp.param_offload, fsdp.optimizer_offload],
    )
    assert len(gpu_hours.SETUPS) == len(MACHINES)
    assert f"Qwen/{model.name}" == config.actor_rollout_ref.model.path


def test_gpu_hours_know_the_shapes(composed, gpu_hours):
    assert gpu_hours.SHAPES == GROUPS + SINGLES
    for shape in gpu_hours.SHAPES:
        config = composed(*overrides_of(SMALL, "cero", "--shape", shape))
        assert gpu_hours.settings_of(shape) == gpu_hours.Settings(
            config.trainer.total_training_steps, *size_of(config), config.trainer.test_freq
        )
