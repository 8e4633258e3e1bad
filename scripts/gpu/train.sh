#!/usr/bin/env bash
# Trains SmolLM2-135M on the few-shot task on one GPU: one run, with $ROLLOUTS (128) rollouts a step.
#
#   bash scripts/gpu/train.sh ARM SET OUT STEPS [Hydra overrides]
#
# ARM, with 128 rollouts a step: grpo (16 prompts x 8), grpo-2 (64 x 2), cero (128 x 1), cero-pooled and
# cero-variance (cero with another allocator.prior or allocator.value), even (one rollout for each prompt),
# even-own (even with a baseline that prompts do not share), aero, cero_seq, mapp or cero_published (16 x 8).
# aero and cero_seq sample in rounds. SET: a folder of $TASK with train.parquet and test.parquet; $TASK/model
# is the model. OUT gets the log and the figures.
#
# SEED (0) seeds all that can be seeded, LR (1e-5) is the learning rate. Each held-out question is answered
# ANSWERS (1) times. RECIPE=cero_cpu trains on a CPU.
set -euo pipefail

# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/usage.sh"
asked_for_help "$@"
[ $# -ge 4 ] || usage
whole_number STEPS "$4"
whole_number ROLLOUTS "${ROLLOUTS:=128}"
whole_number ANSWERS "${ANSWERS:=1}"
task=${TASK:-/opt/gpu/task}
for file in "$2/train.parquet" "$2/test.parquet" model/config.json; do
  [ -e "$task/$file" ] || { echo "$0: TASK=$task: there is no $file" >&2; exit 2; }
done
task=$(cd "$task" && pwd)
mkdir -p "$3"
arm=$1 set=$2 out=$(cd "$3" && pwd) steps=$4
shift 4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
plain_path TASK "$task"
plain_path OUT "$out"
plain_path checkout "$here"
recipe=${RECIPE:-cero}
rollouts=$ROLLOUTS
seed=${SEED:-0}

case $arm in
  grpo) group=8 method=(allocator=uniform) ;;
  grpo-2) group=2 method=(allocator=uniform) ;;
  cero) group=1 method=(allocator=cero) ;;
  cero-pooled) group=1 method=(allocator=cero allocator.prior=pooled) ;;
  cero-variance) group=1 method=(allocator=cero allocator.value=variance) ;;
  even) group=1 method=(allocator=cero allocator.n_min=1 allocator.n_max=1) ;;
  even-own) group=1 method=(allocator=cero allocator.n_min=1 allocator.n_max=1 algorithm.cero.bucket=null) ;;
  aero | cero_seq) group=8 method=("allocator=$arm") ;;
  mapp) group=8 method=(allocator=uniform algorithm.adv_estimator=cero algorithm.cero.advantage=mapp) ;;
  cero_published) # as scripts/benchmark/pretrained.yaml has it
    group=8
    method=(
      allocator=cero allocator.n_min=2 allocator.n_max=32 allocator.value=variance allocator.forgetting=1.0
      allocator.prior=fixed allocator.utility=exp allocator.saturation=1.0 allocator.response=2.0
      allocator.anchor=last allocator.prompt_step=1.0 allocator.budget_step=1.0 algorithm.adv_estimator=grpo
    )
    ;;
  *)
    echo "$0: $arm: grpo, grpo-2, cero, cero-pooled, cero-variance, even, even-own, aero, cero_seq, mapp" \
      "or cero_published" >&2
    exit 2
    ;;
esac
if [ $((rollouts % group)) -ne 0 ]; then
  echo "$0: ROLLOUTS=$rollouts: $arm needs a multiple of $group" >&2
  exit 2
fi
method+=(
  "data.train_batch_size=$((rollouts / group))"
  "actor_rollout_ref.rollout.n=$group"
  "actor_rollout_ref.actor.ppo_mini_batch_size=$((rollouts / group))"
)

overrides=(
  "+recipe=$recipe"
  "${method[@]}"
  "data.train_files=$task/$set/train.parquet"
  "data.val_files=$task/$set/test.parquet"
  data.max_prompt_length=128
  data.max_response_length=40
  data.dataloader_num_workers=0
  "data.seed=$seed"
  "allocator.seed=$seed"
  "actor_rollout_ref.actor.data_loader_seed=$seed"
  "actor_rollout_ref.rollout.seed=$seed"
  data.validation_shuffle=false
  "actor_rollout_ref.model.path=$task/model"
  "reward.custom_reward_function.path=$here/../../examples/fewshot/reward.py"
  "actor_rollout_ref.actor.optim.lr=${LR:-1e-5}"
  # The engine's own log-probs are the old ones: half of a second forward pass is saved, and what the
  # trainer's say beside them is in training/rollout_actor_probs_pearson_corr.
  algorithm.rollout_correction.bypass_mode=true
  actor_rollout_ref.rollout.calculate_log_probs=true
  # Rows are packed, which needs no flash-attention. Without it, verl takes log-probs of logits token by token
  # (verl.utils.torch_functional.logprobs_from_logits_v2); fused with the model's head, in chunks.
  actor_rollout_ref.model.use_remove_padding=true
  actor_rollout_ref.model.use_fused_kernels=true
  actor_rollout_ref.model.fused_kernel_options.impl_backend=torch
  actor_rollout_ref.rollout.val_kwargs.do_sample=true # as in training
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0
  "actor_rollout_ref.rollout.val_kwargs.n=$ANSWERS"
  trainer.total_epochs=1000 # the number of steps decides
  "trainer.total_training_steps=$steps"
  trainer.val_before_train=true
  trainer.test_freq=20
  trainer.save_freq=-1
  trainer.resume_mode=disable
  'trainer.logger=[console,file]'
  trainer.project_name=cero
  "trainer.experiment_name=$set-$arm-$seed"
  "trainer.default_local_dir=$out"
  "hydra.run.dir=$out/hydra"
  cero.poll_interval=0.1 # a step takes a few seconds
)
if [ "$recipe" = cero ]; then
  graphs='{"mode":0,"cudagraph_mode":"FULL_DECODE_ONLY"}'
  overrides+=(
    trainer.n_gpus_per_node=1
    trainer.nnodes=1
    +actor_rollout_ref.model.override_config.attn_implementation=sdpa
    actor_rollout_ref.model.enable_gradient_checkpointing=false
    actor_rollout_ref.actor.strategy=fsdp2
    actor_rollout_ref.actor.use_dynamic_bsz=true
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192
    actor_rollout_ref.actor.use_torch_compile=false
    actor_rollout_ref.actor.fsdp_config.use_torch_compile=false
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
    # Runs that share a card: vLLM keeps its memory, 1 GiB of cache.
    actor_rollout_ref.rollout.free_cache_engine=false
    ++actor_rollout_ref.rollout.enable_sleep_mode=false
    actor_rollout_ref.rollout.gpu_memory_utilization=0.1
    +actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=1073741824
    # CUDA graphs without compilation decode as fast, and the run starts a minute earlier.
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.compilation_config='$graphs'"
    # Fewer processes to start than verl's 8 of each.
    actor_rollout_ref.rollout.agent.num_workers=1
    reward.num_workers=1
    transfer_queue.backend.SimpleStorage.num_data_storage_units=1
    ray_kwargs.ray_init.num_cpus=12
    ++ray_kwargs.ray_init.include_dashboard=false
    ++ray_kwargs.ray_init.address=local
    "++ray_kwargs.ray_init._temp_dir=/tmp/ray"
    ++ray_kwargs.ray_init.object_store_memory=2000000000
  )
else
  overrides+=(
    actor_rollout_ref.actor.use_dynamic_bsz=true
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512
    actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=256 # embedding: 113 MB
  )
fi

export VERL_FILE_LOGGER_ROOT=$out HYDRA_FULL_ERROR=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export VLLM_NO_USAGE_STATS=1 RAY_USAGE_STATS_ENABLED=0 RAY_prestart_worker_first_driver=0
export VLLM_USE_FLASHINFER_SAMPLER=0 HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} # many processes share the cores
export RAY_memory_monitor_refresh_ms=0 # some virtual machines show little memory until it is used
cd "$out" # in a checkout, Python would take the package from there, without its recipes
exec "${PYTHON:-python3}" -m verl.trainer.main_ppo "${overrides[@]}" "$@" >"$out/train.log" 2>&1
