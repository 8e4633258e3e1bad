"""What does the CPU path register, where, and when must it not? Without Ray or vLLM's engine.

That it registers in a process of its own is tested in test_processes.py.
"""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import torch
import verl
from verl.plugin.platform import platform_manager
from verl.plugin.platform.platform_base import PlatformBase

from cero.verl.cpu.platform import CpuPlatform

RECIPE = Path(__file__).parents[2] / "recipe" / "cpu.yaml"


def test_auto_detection_never_picks_the_cpu(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    for name in ("PlatformCUDA", "PlatformROCm", "PlatformNPU"):  # as on a head node without any
        monkeypatch.setattr(
            getattr(platform_manager, name), "is_platform_available", lambda self, use_smi_check=False: False
        )
    assert "cpu" in platform_manager.PlatformRegistry.registered_names()
    assert platform_manager._detect_platform_name() == "nvidia"


@pytest.mark.parametrize(
    "value, available", [("cpu", True), (" CPU ", True), ("nvidia", False), ("", False), (None, False)]
)
def test_the_platform_serves_only_who_asks(monkeypatch, value, available):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    if value is not None:
        monkeypatch.setenv("VERL_PLATFORM", value)
    assert CpuPlatform().is_platform_available(use_smi_check=True) is available


def test_the_platform_implements_all_of_verls_interface():
    platform = CpuPlatform()  # raises if an abstract method is missing
    for name, function in inspect.getmembers(PlatformBase, inspect.isfunction):
        override = inspect.signature(getattr(CpuPlatform, name))
        assert list(override.parameters) == list(inspect.signature(function).parameters), name
    assert torch.zeros(1).to(platform.current_device()).device == torch.device("cpu")
    with platform.nvtx_range("nothing"):
        platform.synchronize()


def test_the_device_module_has_what_verl_calls():
    sources = Path(verl.__file__).parent.rglob("*.py")
    used = {
        name
        for path in sources
        for name in re.findall(r"get_torch_device\(\)\.(\w+)", path.read_text("utf-8"))
    }
    assert len(used) > 10  # else the pattern is out of date
    device = CpuPlatform().device_module
    assert sorted(name for name in used if not hasattr(device, name)) == []
    assert 0 < device.memory_allocated() < device.mem_get_info()[1]
    assert device.get_device_name()


def test_the_hydra_callback_turns_a_process_that_already_looked(monkeypatch):
    from cero.verl.cpu.driver import UseCpu

    monkeypatch.setattr(platform_manager, "_current_platform", platform_manager.PlatformCUDA())
    UseCpu().on_job_start(config=None)
    assert platform_manager.get_platform().device_name == "cpu"


def test_engines_are_added_for_the_cpu_and_none_is_replaced():
    from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

    for model_type in ("language_model", "value_model"):
        engines = EngineRegistry._engines[model_type]
        assert engines["fsdp2"]["cpu"].__module__ == "cero.verl.cpu.engine"
        assert "cpu" not in engines["fsdp"]
    assert EngineRegistry._engines["language_model"]["fsdp2"]["cuda"] is FSDPEngineWithLMHead


def test_workers_are_swapped_by_role():
    from verl.trainer.ppo.utils import Role

    from cero.verl.cpu.workers import CpuActorRolloutRefWorker, CpuTrainingWorker, use_cpu_workers

    trainer = SimpleNamespace(role_worker_mapping={Role.ActorRolloutRef: None, Role.Critic: None})
    use_cpu_workers(trainer)
    classes = {
        role: actor.__ray_metadata__.modified_class for role, actor in trainer.role_worker_mapping.items()
    }
    assert issubclass(classes[Role.ActorRolloutRef], CpuActorRolloutRefWorker)
    assert issubclass(classes[Role.Critic], CpuTrainingWorker)
    assert CpuActorRolloutRefWorker.actor_worker_cls is CpuTrainingWorker


@pytest.mark.e2e  # imports vLLM
def test_each_run_hands_over_weights_at_its_own_path(monkeypatch):
    """Both ends agree on the path, and another Ray's first job has another one."""
    import ray
    from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

    from cero.verl.cpu import weight_path

    def paths(node):
        context = SimpleNamespace(get_job_id=lambda: "01000000", get_node_id=lambda: node)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
        monkeypatch.setenv("VERL_REPLICA_RANK", "0")
        monkeypatch.setenv("VERL_RAY_JOB_ID", "01000000")  # as verl sets it
        weight_path.name_receiver()
        worker = SimpleNamespace(model_runner=None, local_rank=0)
        sender = SimpleNamespace(zmq_handle="ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock")
        weight_path.name_sender(sender)
        return vLLMColocateWorkerExtension._get_zmq_handle(worker), sender.zmq_handle

    (one, same), (other, _) = paths("5f" * 28), paths("a1" * 28)
    assert one == same and one != other
    assert len(one.removeprefix("ipc://")) < 108  # what the kernel allows


@pytest.mark.e2e  # the import of vLLM's loaders takes 5 s
def test_layers_that_share_a_weight_are_found():
    pytest.importorskip("vllm")
    from cero.verl.cpu.weight_sync import layers_sharing_a_weight

    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("embed", "other", "head")})
    for layer in model.values():
        layer.quant_method = None
    assert layers_sharing_a_weight(model) == []
    model["head"].weight = model["embed"].weight
    assert layers_sharing_a_weight(model) == [model["embed"], model["head"]]


def test_the_recipe_leaves_the_environment_of_the_user_alone(monkeypatch):
    from omegaconf import OmegaConf

    env = OmegaConf.load(RECIPE).hydra.job.env_set
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "mine")
        assert env[name] == "mine"
        monkeypatch.delenv(name)
        assert env[name] != "mine"
    assert env.VERL_PLATFORM == "cpu"


def test_weights_reach_a_separate_engine_through_a_file():
    """By verl's own registry and protocol; nothing is left, and only the first process writes."""
    import asyncio

    from verl.checkpoint_engine.base import CheckpointEngineRegistry

    from cero.verl.cpu import weight_file

    made = CheckpointEngineRegistry.new
    master, other = (made("shared_memory", bucket_size=1, is_master=first) for first in (True, False))
    engine = made("shared_memory", bucket_size=1)
    weights = {
        "layer.weight": torch.arange(6.0).reshape(2, 3),
        "layer.bias": torch.ones(2, dtype=torch.bfloat16),
    }

    async def transfer():
        async def receive():
            return {name: tensor async for name, tensor in engine.receive_weights(global_steps=3)}

        received = asyncio.create_task(receive())
        await asyncio.sleep(0.03)  # the engine may be there first
        await other.send_weights(iter({}.items()))
        await master.send_weights(iter(weights.items()), global_steps=3)
        return await received

    metadata = [part.prepare() for part in (master, other, engine)]
    for_trainer, for_engine = master.build_topology(2, 1, metadata)
    assert for_trainer == {"path": [metadata[0]] * 2} and for_engine == {"path": [metadata[0]]}
    for part in (master, other, engine):
        part.init_process_group(metadata[0])
    received = asyncio.run(transfer())
    assert list(received) == list(weights)
    assert all(torch.equal(received[name], weights[name]) for name in weights)
    weights["layer.bias"] += 1
    assert received["layer.bias"].tolist() == [1.0, 1.0]
    for part in (engine, other, master):
        part.finalize()
    assert not list(Path(metadata[0]).parent.glob(f"{Path(metadata[0]).name}*"))
    assert weight_file.BACKEND == "shared_memory"


def test_copies_of_the_model_are_no_views(monkeypatch):
    """On a CPU verl's `.cpu()` copies nothing, and the kept model would learn with the other one."""
    from verl.experimental.separation.engine_workers import DetachActorWorker
    from verl.trainer.ppo.utils import Role

    from cero.verl.cpu.workers import CpuDetachActorWorker, use_cpu_workers

    tensor = torch.zeros(2)
    monkeypatch.setattr(
        DetachActorWorker,
        "copy_handler",
        property(lambda self: lambda module: ({"w": (tensor, "spec")}, "spec")),
    )
    worker = CpuDetachActorWorker.__new__(CpuDetachActorWorker)
    state, spec = worker.copy_handler(None)
    tensor += 1
    assert spec == "spec" and state["w"][1] == "spec" and state["w"][0].tolist() == [0.0, 0.0]
    trainer = SimpleNamespace(role_worker_mapping={Role.Actor: None})
    use_cpu_workers(trainer, detached=True)
    assert issubclass(
        trainer.role_worker_mapping[Role.Actor].__ray_metadata__.modified_class, CpuDetachActorWorker
    )
