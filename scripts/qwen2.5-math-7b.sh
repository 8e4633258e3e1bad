#!/usr/bin/env bash
# Trains Qwen2.5-Math-7B on DAPO-Math-17k with one node of 8 or 4 GPUs: GRPO, CERO, its control or AERO,
# with the same budget of rollouts. Without a word, or with a wrong one, it prints what there is to choose.
#
#   python examples/math/prepare.py --out data/math                 # once; needs the Hugging Face hub
#   bash scripts/qwen2.5-math-7b.sh grpo                            # 128 prompts x 8 rollouts a step
#   bash scripts/qwen2.5-math-7b.sh cero                            # 1,024 prompts x 1 on average
#   bash scripts/qwen2.5-math-7b.sh even                            # 1,024 x 1, each the same: the control
#   bash scripts/qwen2.5-math-7b.sh cero --shape 128x8              # GRPO's shape
#   bash scripts/qwen2.5-math-7b.sh aero --gpus 4
#   bash scripts/qwen2.5-math-7b.sh cero --dry-run                  # prints the command
#   bash scripts/qwen2.5-math-7b.sh cero --cfg job                  # prints the whole config, trains nothing
#   cero report runs/math/qwen2.5-math-7b-cero-1024x1               # afterwards
#
# Whatever else follows the method is a further override of verl's config. It wins over those here and in
# scripts/lib/qwen2.5-math.sh, where most of them are:
#
#   bash scripts/qwen2.5-math-7b.sh cero allocator.n_max=16
#
# Environment: MODEL (hub name or folder), DATA (folder of prepare.py), OUT (checkpoints and logs), NODES
# (more than 1 needs a Ray cluster). TensorBoard files go to tensorboard_log/ of the working directory, verl's
# default.
#
# NOT RUN: written without a GPU. tests/verl/test_math_scripts.py composes it through verl's own config, and
# verl's validate_config accepts it. Speed, memory and results are unknown. The memory settings are meant for
# 80 GB. Reasons, expected GPU hours and memory are in the documentation's page on Qwen2.5-Math.
set -euo pipefail

# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"
# shellcheck source=scripts/lib/qwen2.5-math.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/qwen2.5-math.sh"
arguments "$@"
[ "$gpus" != 1 ] || wrong "--gpus 1: weights, gradients and Adam take 122 GB; use the 1.5B or 4 GPUs"

size=(
  "actor_rollout_ref.model.path=${MODEL:-Qwen/Qwen2.5-Math-7B}"
  # Up to two full-length responses, or many short ones, in a micro-batch.
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192
  # One vLLM on every two GPUs halves the weights on each and leaves more to the cache.
  actor_rollout_ref.rollout.tensor_model_parallel_size=2
)
# On 4 GPUs, weights, gradients and Adam take 30 GB each instead of 15. So Adam's 15 wait in host memory, 61
# GB in all.
[ "$gpus" = 8 ] || size+=(actor_rollout_ref.actor.fsdp_config.optimizer_offload=True)

start qwen2.5-math-7b "${size[@]}"
