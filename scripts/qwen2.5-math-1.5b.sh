#!/usr/bin/env bash
# Trains Qwen2.5-Math-1.5B on DAPO-Math-17k with one node of 8, 4 or 1 GPUs: GRPO, CERO, its control or AERO,
# with the same budget of rollouts. Without a word, or with a wrong one, it prints what there is to choose.
#
#   python examples/math/prepare.py --out data/math                 # once; needs the Hugging Face hub
#   bash scripts/qwen2.5-math-1.5b.sh grpo                          # 128 prompts x 8 rollouts a step
#   bash scripts/qwen2.5-math-1.5b.sh cero                          # 1,024 prompts x 1 on average
#   bash scripts/qwen2.5-math-1.5b.sh even                          # 1,024 x 1, each the same: the control
#   bash scripts/qwen2.5-math-1.5b.sh cero --shape 128x8            # GRPO's shape
#   bash scripts/qwen2.5-math-1.5b.sh aero --gpus 4
#   bash scripts/qwen2.5-math-1.5b.sh cero --gpus 1                 # one card of 80 GB
#   bash scripts/qwen2.5-math-1.5b.sh cero --gpus 1 --memory 24     # one of 24 GB: LoRA
#   bash scripts/qwen2.5-math-1.5b.sh cero --dry-run                # prints the command
#   bash scripts/qwen2.5-math-1.5b.sh cero --cfg job                # prints the whole config, trains nothing
#   cero report runs/math/qwen2.5-math-1.5b-cero-1024x1             # afterwards
#
# Whatever else follows the method is a further override of verl's config. It wins over those here and in
# scripts/lib/qwen2.5-math.sh, where most of them are:
#
#   bash scripts/qwen2.5-math-1.5b.sh cero allocator.n_max=16
#
# Environment: MODEL (hub name or folder), DATA (folder of prepare.py), OUT (checkpoints and logs), NODES
# (more than 1 needs a Ray cluster). TensorBoard files go to tensorboard_log/ of the working directory, verl's
# default.
#
# NOT RUN: written without a GPU. tests/verl/test_math_scripts.py composes it through verl's own config, and
# verl's validate_config accepts it. Speed, memory and results are unknown. The memory settings are meant for
# 80 GB, with --memory 24 for 24 GB. Reasons, expected GPU hours and memory are in the documentation's page
# on Qwen2.5-Math.
set -euo pipefail

# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"
# shellcheck source=scripts/lib/qwen2.5-math.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/qwen2.5-math.sh"
arguments "$@"

size=(
  "actor_rollout_ref.model.path=${MODEL:-Qwen/Qwen2.5-Math-1.5B}"
  # Up to four full-length responses, or many short ones, in a micro-batch.
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384
  # One vLLM per GPU, as the model fits on one many times.
  actor_rollout_ref.rollout.tensor_model_parallel_size=1
)

start qwen2.5-math-1.5b "${size[@]}"
