"""Does the installed verl have the hooks that this plugin overrides or calls?

This is checked before anything trains. Otherwise a verl that renamed a method would train without the
scheduler, or fail in the middle of a step.
"""

import importlib
import inspect

TESTED = ("0.9.1",)  # versions of verl with which the whole test suite passes

# Module -> name in it -> method -> names of the parameters that the plugin relies on. The method is None
# where the name itself is called.
HOOKS = {
    "verl.trainer.ppo.v1.trainer_base": {
        "register_trainer": {None: ("name",)},
        "PPOTrainer": {
            "__init__": ("config",),
            "_init_dataloader": (),
            "_build_replay_buffer": (),
            "_init_resource_pool_mgr": (),
            "_add_batch_to_generate": (),
            "_submit_batch_to_rollout": ("batch",),
            "_step_once": ("metrics", "timing_raw", "sample_batch_size"),
            "_balance_batch": ("batch", "metrics"),
            "_get_required_batch_multiple": ("dp_size",),
            "_compute_old_log_prob": ("batch", "metrics"),
            "_compute_advantage": ("batch", "metrics"),
            "_update_actor": ("batch", "metrics"),
            "fit": ("agent_loop_manager",),
            "_compute_metrics": ("batch", "metrics", "timing_raw", "global_steps", "epoch"),
            "_validate": (),
            "_save_checkpoint": (),
            "_load_checkpoint": (),
        },
    },
    "verl.trainer.ppo.v1.trainer_sync": {"PPOTrainerSync": {"_fetch_one_gen_batch": ()}},  # called only
    "verl.trainer.ppo.v1.replay_buffer": {
        "ReplayBuffer": {"_wait_for_next_poll": ("partition_id", "last_debug_time")},
    },
    "verl.trainer.ppo.v1.agent_loop_tq": {
        "AgentLoopManagerTQ": {"_init_agent_loop_workers": ()},
        # verl hides the class behind Ray's decorator.
        "AgentLoopWorkerTQ.__ray_actor_class__": {
            "_run_prompt": ("prompt", "sampling_params", "trajectory"),
            "_run_agent_loop": ("sampling_params", "trajectory"),
            "_compute_score": ("outputs", "kwargs"),
            "_agent_loop_postprocess": ("output", "validate"),
        },
    },
    "verl.utils.tensordict_utils": {
        "get_tensordict": {None: ("tensor_dict",)},
        "concat_tensordict": {None: ("data",)},
        "index_select_tensor_dict": {None: ("batch", "indices")},
        "assign_non_tensor_data": {None: ("tensor_dict", "key", "val")},
    },
    "verl.single_controller.base.worker": {"Worker": {"_query_dispatch_info": ("mesh_name",)}},
    "verl.trainer.ppo.core_algos": {
        "register_adv_est": {None: ("name_or_enum",)},
        "get_adv_estimator_fn": {None: ("name_or_enum",)},  # it looks into ADV_ESTIMATOR_REGISTRY, as we do
    },
    "transfer_queue": {
        "kv_batch_get": {None: ("keys", "partition_id", "select_fields")},
        "kv_batch_put": {None: ("keys", "partition_id", "fields")},
        "kv_clear": {None: ("keys", "partition_id")},
    },
}


# What the asynchronous trainers need beside that.
ASYNC_HOOKS = {
    "verl.trainer.ppo.v1.trainer_base": {
        "PPOTrainer": {
            "step": ("metrics", "timing_raw"),
            "on_sample_begin": (),
            "on_sample_end": (),
            "on_validate_begin": (),
            "on_validate_end": (),
            "_shutdown_dump_executor": (),
            "_add_prompts_to_generate": ("num_prompts",),
            "_add_async_warmup_batches": ("num_warmup_batches",),
        },
    },
    "verl.trainer.ppo.v1.utils": {
        "MetricsAggregator": {
            "add_step_metrics": ("metrics", "sample_count"),
            "get_aggregated_metrics": (),
        },
    },
    "verl.trainer.ppo.v1.trainer_colocate_async": {"PPOTrainerColocateAsync": {"on_train_begin": ()}},
    "verl.trainer.ppo.v1.trainer_separate_async": {"PPOTrainerSeparateAsync": {"on_train_begin": ()}},
    "verl.trainer.ppo.v1.replay_buffer": {
        "ReplayBufferAsync": {
            "_materialize_batch": ("partition_id", "selected_prompt_uids", "partition_snapshot"),
            "_clear_groups": ("partition_id", "uids"),
            "_has_enough_samples": ("global_steps", "partition_id", "batch_size", "sampleable_keys"),
        },
    },
    "transfer_queue": {"kv_list": {None: ("partition_id",)}},
}


class IncompatibleVerl(ValueError):
    """Raised where the installed verl lacks a hook; names the hook and the versions known to work."""


def missing_hooks(hooks=HOOKS):
    """Return what the installed verl lacks: a list of str, each on a hook that is missing or different."""
    missing = []
    for module_name, names in hooks.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            missing.append(f"{module_name} ({error})")
            continue
        for name, methods in names.items():
            try:
                owner = module
                for part in name.split("."):
                    owner = getattr(owner, part)
            except AttributeError:
                missing.append(f"{module_name}.{name}")
                continue
            for method, parameters in methods.items():
                where = f"{module_name}.{name}" + (f".{method}" if method else "")
                function = getattr(owner, method, None) if method else owner
                if function is None:
                    missing.append(where)
                    continue
                missing += _missing_parameters(where, function, parameters)
    return missing


def _missing_parameters(where, function, parameters):
    """Return a list of one str naming the `parameters` that `function` lacks, or an empty list."""
    has = inspect.signature(function).parameters
    # In Ray's processes its tracing wraps the methods of actors in functions that take anything.
    takes_all = any(each.kind is each.VAR_KEYWORD for each in has.values())
    absent = [name for name in parameters if name not in has and not takes_all]
    return [f"{where} without the parameter {', '.join(absent)} (it has {', '.join(has)})"] if absent else []


def check_verl(hooks=HOOKS):
    """Raise IncompatibleVerl if the installed verl lacks a hook. Imports verl's trainers."""
    missing = missing_hooks(hooks)
    if missing:
        import verl

        raise IncompatibleVerl(
            f"verl {verl.__version__} lacks what the rollout scheduler hooks into: {'; '.join(missing)}. "
            f"Versions known to work: {', '.join(TESTED)}; install one of them "
            f"(pip install verl=={TESTED[-1]})"
        )
