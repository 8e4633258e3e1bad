#!/usr/bin/env bash
# Qwen2.5-Math-1.5B on DAPO-Math-17k with one node of 8 GPUs: CERO, or GRPO with the same budget.
#
#   python examples/math/prepare.py --out data/math                 # once; needs the Hugging Face hub
#   bash scripts/qwen2.5-math-1.5b.sh                               # CERO
#   bash scripts/qwen2.5-math-1.5b.sh allocator=uniform             # GRPO: 8 rollouts for every prompt
#   bash scripts/qwen2.5-math-1.5b.sh --cfg job                     # prints the whole config, trains nothing
#   cero report runs/math/qwen2.5-math-1.5b-cero                    # afterwards
#
# Whatever follows the script's name is a further override of verl's config and wins over the ones below:
#
#   bash scripts/qwen2.5-math-1.5b.sh allocator.n_max=16 trainer.total_epochs=1
#
# Environment: MODEL (hub name or folder), DATA (folder of prepare.py), OUT (checkpoints and logs),
# GPUS (per node; 8 by default, and 1, 2 and 4 divide the batches too), NODES (more than 1 needs a Ray cluster).
# TensorBoard files go to tensorboard_log/ of the working directory, verl's default.
#
# NOT RUN: written without a GPU. tests/verl/test_scripts.py composes it through verl's own config and verl's
# validate_config accepts it; speed, memory and results are unknown. The memory settings are meant for 80 GB.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MODEL=${MODEL:-Qwen/Qwen2.5-Math-1.5B}
DATA=${DATA:-data/math}
OUT=${OUT:-runs/math}
GPUS=${GPUS:-8}
NODES=${NODES:-1}

overrides=(
  # The recipe, and the word that picks the allocator: its options are in recipe/allocator/<word>.yaml, for cero
  # 2 to 32 rollouts a prompt. Without the plugin the second line is an error, not silently plain PPO.
  +recipe=cero
  allocator=cero

  # Budget: 128 prompts x 8 rollouts = 1024 responses a step, however they are spread over the prompts.
  data.train_batch_size=128
  actor_rollout_ref.rollout.n=8
  # About 135 steps an epoch. Posteriors are worth something from the second visit to a prompt on.
  trainer.total_epochs=3

  # Data. One seed for all allocators: they meet the same prompts in the same order.
  "data.train_files=$DATA/train.parquet"
  "data.val_files=[$DATA/math500.parquet,$DATA/aime24.parquet,$DATA/amc23.parquet]"
  data.seed=0
  # Qwen2.5-Math's context is 4096 tokens in all; the few longer prompts are left out.
  data.max_prompt_length=1024
  data.max_response_length=3072
  data.filter_overlong_prompts=True

  # Reward 0 or 1, which is the range that cero.success.range expects.
  "reward.custom_reward_function.path=$root/examples/math/reward.py"

  # Model, from the hub or a folder.
  "actor_rollout_ref.model.path=$MODEL"
  # No computation on padding: responses differ much in length.
  actor_rollout_ref.model.use_remove_padding=True
  # Activations are computed again in the backward pass: much less memory, about a third more computation.
  actor_rollout_ref.model.enable_gradient_checkpointing=True

  # Update: two optimizer steps of 512 responses for each batch of 1024, so no padding rows.
  actor_rollout_ref.actor.ppo_mini_batch_size=64
  # The usual rate for full fine-tuning with RL.
  actor_rollout_ref.actor.optim.lr=1e-6
  # Micro-batches by tokens rather than rows: up to four full-length responses, or many short ones.
  actor_rollout_ref.actor.use_dynamic_bsz=True
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384
  # No KL penalty: a rule checks the answers, so there is no learned reward to drift away from,
  # and no reference model takes memory and time.
  actor_rollout_ref.actor.use_kl_loss=False
  algorithm.use_kl_in_reward=False

  # Rollouts: one vLLM per GPU, as the model fits on one many times.
  actor_rollout_ref.rollout.name=vllm
  actor_rollout_ref.rollout.tensor_model_parallel_size=1
  # vLLM frees it during the update; weights and Adam (about 2 GB a GPU) stay.
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6
  # Plain sampling: what is rewarded is the policy itself.
  actor_rollout_ref.rollout.temperature=1.0

  # Validation: 8 samples a question, for mean@8 (Avg@8) and best@8 (Pass@8) of each set.
  actor_rollout_ref.rollout.val_kwargs.n=8
  actor_rollout_ref.rollout.val_kwargs.do_sample=True
  actor_rollout_ref.rollout.val_kwargs.temperature=0.6
  actor_rollout_ref.rollout.val_kwargs.top_p=0.95
  # Each costs as many responses as 4 to 5 training steps.
  trainer.test_freq=25

  # Checkpoints, with Adam's state about 18 GB each. A rerun of the same command resumes from the last.
  trainer.save_freq=25
  trainer.max_actor_ckpt_to_keep=2

  # Names and places. The allocator is in the name: CERO and GRPO must not resume from each other.
  trainer.project_name=cero_math
  'trainer.experiment_name=qwen2.5-math-1.5b-${allocator.name}'
  "trainer.default_local_dir=$OUT/\${trainer.experiment_name}"
  'trainer.logger=[console,tensorboard]'

  # Machine.
  "trainer.n_gpus_per_node=$GPUS"
  "trainer.nnodes=$NODES"
)

exec python -m verl.trainer.main_ppo "${overrides[@]}" "$@"
