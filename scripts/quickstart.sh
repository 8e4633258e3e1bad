#!/usr/bin/env bash
# From a fresh clone to a trained model and a report, on a machine without a GPU.
#
#   bash scripts/quickstart.sh [Hydra overrides]
#   bash scripts/quickstart.sh allocator=uniform          GRPO on the same budget
#   OUT=runs/mine bash scripts/quickstart.sh allocator.n_max=16
#
# Installs into .venv, makes questions and a tiny Llama, and trains it with verl's own main_ppo, vLLM's CPU
# engine and FSDP2. Everything a run writes is under $OUT, which each call makes anew.
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
task=${TASK:-runs/arithmetic} # questions and warm-started model; reused when up to date
out=${OUT:-runs/quickstart}
plain_path TASK "$task"
plain_path OUT "$out"

say() { printf '\n== %s\n' "$*"; }

say "install"
bash scripts/install.sh
export PATH="$PWD/.venv/bin:$PATH"

say "questions and a warm-started model"
python examples/arithmetic/prepare.py --out "$task" --train 336

say "train (verl's console output goes to $out/train.log)"
overrides=(
  +recipe=cero_cpu                                    # the scheduler, its estimator, and the CPU path
  data.train_files="$task/train.parquet"
  data.val_files="$task/test.parquet"
  data.train_batch_size=28                            # prompts a step: 12 steps an epoch
  data.max_prompt_length=32
  data.max_response_length=8
  actor_rollout_ref.model.path="$task/model"
  actor_rollout_ref.rollout.n=8                       # rollouts per prompt: the budget is steps x 28 x 8
  actor_rollout_ref.actor.ppo_mini_batch_size=28      # one update a step
  actor_rollout_ref.actor.optim.lr=1e-4
  reward.custom_reward_function.path=examples/arithmetic/reward.py
  trainer.total_epochs=3
  trainer.val_before_train=true
  trainer.test_freq=4
  trainer.save_freq=-1                                # no checkpoints: a run takes minutes
  trainer.logger=[console,tensorboard]
  trainer.project_name=cero
  trainer.experiment_name=quickstart
)
bash scripts/train_and_report.sh "$out" "${overrides[@]}" "$@"
