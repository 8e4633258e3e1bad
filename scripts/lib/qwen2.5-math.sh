# shellcheck shell=bash
# What scripts/qwen2.5-math-*.sh have in common; they source it. `arguments "$@"` reads the command line, and
# `start` starts verl. Reasons that take more than a line are in the documentation's page on Qwen2.5-Math.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
DATA=${DATA:-data/math}
OUT=${OUT:-runs/math}
NODES=${NODES:-1}

# Budget of rollouts, the same for all methods: steps x prompts x rollouts per prompt.
steps=400
prompts=128
rollouts=8

# Reads METHOD [--gpus N] [--dry-run] [override...] into `method`, `gpus`, `dry`, `further`.
arguments() {
  method=${1:-}
  gpus=8
  dry=false
  further=()
  case $method in
    grpo | cero | aero) shift ;;
    *) usage "the first word is the method: grpo, cero or aero" ;;
  esac
  while [ $# -gt 0 ]; do
    case $1 in
      --gpus)
        case ${2:-} in
          8 | 4) gpus=$2 ;;
          *) usage "--gpus ${2:-}: 8 or 4" ;;
        esac
        shift
        ;;
      --dry-run) dry=true ;;
      *) further+=("$1") ;;
    esac
    shift
  done
}

usage() {
  printf '%s: %s\n' "$0" "$1" >&2
  printf 'usage: bash %s grpo|cero|aero [--gpus 8|4] [--dry-run] [further Hydra overrides]\n' "$0" >&2
  exit 2
}

# start NAME OVERRIDE...: trains, with the overrides of a model's size. --dry-run prints the command instead.
start() {
  local name=$1 recipe=cero allocator=$method last=$steps run="$1-\${allocator.name}"
  shift
  case $method in
    grpo)
      allocator=uniform
      run=$name-grpo
      ;;
    aero)
      recipe=aero
      # AERO leaves at most half of a step's rollouts unspent. So twice the steps are enough for the whole
      # budget, and rollout_budget.py ends the run there.
      last=$((2 * steps))
      ;;
  esac

  local set validation=
  for set in aime24 aime25 amc23 math500 minerva olympiad; do
    validation+=${validation:+,}$DATA/$set.parquet
  done

  local overrides=(
    # The recipe, and the word that picks the allocator; its options are in recipe/allocator/<word>.yaml.
    # Without the plugin the second line is an error, and not silently plain PPO.
    "+recipe=$recipe"
    "allocator=$allocator"

    # Budget: prompts x rollouts responses a step, however they are spread over the prompts.
    "data.train_batch_size=$prompts"
    "actor_rollout_ref.rollout.n=$rollouts"
    "trainer.total_training_steps=$last"
    # DAPO-Math-17k has about 135 steps an epoch, so 400 steps are three visits to each prompt. Posteriors are
    # worth something from the second visit on. Steps decide the run's length, not epochs.
    trainer.total_epochs=100
    # Where a run ends whose steps cost less (or, after `rollout.n=16`, more). An error if it can't get that
    # far.
    "+trainer.total_rollouts=$((steps * prompts * rollouts))"
    trainer.checkpoint_callback_class=rollout_budget.EndAtBudget

    # Data. One seed for all allocators: they meet the same prompts in the same order.
    "data.train_files=$DATA/train.parquet"
    "data.val_files=[$validation]"
    data.seed=0
    # Qwen2.5-Math's context is 4096 tokens in all; the few longer prompts are left out.
    data.max_prompt_length=1024
    data.max_response_length=3072
    data.filter_overlong_prompts=True

    # The reward is 0 or 1, which is the range that cero.success.range expects.
    "reward.custom_reward_function.path=$root/examples/math/reward.py"

    # Responses differ much in length, so nothing is computed on padding.
    actor_rollout_ref.model.use_remove_padding=True
    # Activations are computed again in the backward pass: much less memory, about a third more computation.
    actor_rollout_ref.model.enable_gradient_checkpointing=True

    # Update: two optimizer steps for each batch, with 512 responses each and no padding rows.
    actor_rollout_ref.actor.strategy=fsdp2
    actor_rollout_ref.actor.ppo_mini_batch_size=64
    # The usual rate for full fine-tuning with RL.
    actor_rollout_ref.actor.optim.lr=1e-6
    # Micro-batches by tokens rather than rows; the size of the model decides how many tokens.
    actor_rollout_ref.actor.use_dynamic_bsz=True
    # No KL penalty, where verl's GRPO examples have one of 0.001. A rule checks the answers, so there is no
    # learned reward to exploit, and no reference model takes memory and time.
    actor_rollout_ref.actor.use_kl_loss=False
    algorithm.use_kl_in_reward=False

    # Rollouts. vLLM frees its memory during the update; the actor's stays, unless it is offloaded.
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    # Plain sampling, so that the policy itself is rewarded.
    actor_rollout_ref.rollout.temperature=1.0

    # Validation: the files say how many samples a question gets, 32 in small sets and 4 in large ones.
    actor_rollout_ref.rollout.val_kwargs.n=1
    actor_rollout_ref.rollout.val_kwargs.do_sample=True
    actor_rollout_ref.rollout.val_kwargs.temperature=0.6
    actor_rollout_ref.rollout.val_kwargs.top_p=0.95
    # A validation takes as many responses as 9 training steps.
    trainer.test_freq=50

    # A rerun of the same command resumes from the last checkpoint.
    trainer.save_freq=50
    trainer.max_actor_ckpt_to_keep=2

    # Names and places. The method is in the name, since runs of different methods must not resume each other.
    trainer.project_name=cero_math
    "trainer.experiment_name=$run"
    "trainer.default_local_dir=$OUT/\${trainer.experiment_name}"
    'trainer.logger=[console,tensorboard]'

    # Machine.
    "trainer.n_gpus_per_node=$gpus"
    "trainer.nnodes=$NODES"
  )
  # verl imports rollout_budget.py by its name, in one of Ray's processes, which inherits this path.
  local path=$root/examples/math${PYTHONPATH:+:$PYTHONPATH}
  local command=(python -m verl.trainer.main_ppo "${overrides[@]}" "$@" ${further[@]+"${further[@]}"})
  if $dry; then
    printf 'PYTHONPATH=%q' "$path"
    printf ' %q' "${command[@]}"
    printf '\n'
    return
  fi
  PYTHONPATH=$path exec "${command[@]}"
}
