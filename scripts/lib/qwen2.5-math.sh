# shellcheck shell=bash
# What scripts/qwen2.5-math-*.sh have in common; they source it. `arguments "$@"` reads the command line, and
# `start` starts verl. Reasons that take more than a line are in the documentation's page on Qwen2.5-Math.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
DATA=${DATA:-data/math}
OUT=${OUT:-runs/math}
NODES=${NODES:-1}

# Budget of rollouts, the same for all methods, shapes and machines: 400 steps of 128 prompts x 8 rollouts.
budget=409600
# Rollouts of an optimizer step at most, and rollouts between two validations, for all shapes.
update=512
between=51200

wrong() {
  printf '%s: %s\n' "$0" "$1" >&2
  cat >&2 <<TEXT
usage: bash $0 METHOD [--shape SHAPE] [--gpus N] [--memory GB] [--dry-run] [Hydra overrides]
  METHOD  grpo | cero | even | aero      even: cero's estimator, the same number for every prompt (control)
  SHAPE   128x8 | 256x4 | 512x2 | 1024x1 | 320x1       prompts x rollouts of a step, same budget in all
          default: 1024x1 for cero and even, 128x8 for grpo and aero, which need 2 rollouts of a prompt
  N       8 | 4 | 1       GPUs of the machine, default 8; 1 is for the 1.5B only
  GB      80 | 24         memory of a GPU, default 80; 24 is for --gpus 1 and trains a LoRA adapter
TEXT
  exit 2
}

# Reads METHOD [--shape SHAPE] [--gpus N] [--memory GB] [--dry-run] [override...] into `method`, `shape` with
# `prompts` and `rollouts`, `gpus`, `memory`, `dry`, `further`.
arguments() {
  method=${1:-}
  gpus=8
  memory=80
  dry=false
  further=()
  case $method in
    grpo | aero) shape=128x8 ;;
    cero | even) shape=1024x1 ;;
    *) wrong "the first word is the method: grpo, cero, even or aero" ;;
  esac
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --shape)
        case ${2:-} in
          128x8 | 256x4 | 512x2 | 1024x1 | 320x1) shape=$2 ;;
          *) wrong "--shape ${2:-}: 128x8, 256x4, 512x2, 1024x1 or 320x1" ;;
        esac
        shift
        ;;
      --gpus)
        case ${2:-} in
          8 | 4 | 1) gpus=$2 ;;
          *) wrong "--gpus ${2:-}: 8, 4 or 1" ;;
        esac
        shift
        ;;
      --memory)
        case ${2:-} in
          80 | 24) memory=$2 ;;
          *) wrong "--memory ${2:-}: 80 or 24" ;;
        esac
        shift
        ;;
      --dry-run) dry=true ;;
      *) further+=("$1") ;;
    esac
    shift
  done
  plain_path DATA "$DATA"
  plain_path OUT "$OUT"
  plain_path checkout "$root"
  prompts=${shape%x*}
  rollouts=${shape#*x}
  case $method$rollouts in
    grpo1) wrong "--shape $shape: grpo compares the rollouts of a prompt, so it needs at least 2" ;;
    aero1) wrong "--shape $shape: aero explores with half of a prompt's rollouts, so it needs at least 2" ;;
  esac
  [ "$memory" = 80 ] || [ "$gpus" = 1 ] || wrong "--memory $memory: only with --gpus 1"
}

# start NAME OVERRIDE...: trains, with the overrides of a model's size. --dry-run prints the command instead.
start() {
  local rows=$((prompts * rollouts))
  local name=$1 recipe=cero allocator=$method last=$((budget / rows)) run="$1-\${allocator.name}-$shape"
  local mini=$prompts control=() machine=()
  shift
  [ $rows -le $update ] || mini=$((update / rollouts))
  case $method in
    grpo)
      allocator=uniform
      run=$name-grpo-$shape
      ;;
    even)
      allocator=cero
      run=$name-even-$shape
      control=("allocator.n_min=$rollouts" "allocator.n_max=$rollouts")
      ;;
    aero)
      recipe=aero
      # AERO leaves at most half of a step's rollouts unspent. So twice the steps are enough for the whole
      # budget, and rollout_budget.py ends the run there.
      last=$((2 * last))
      ;;
  esac
  [ "$gpus" != 1 ] || single
  [ "$memory" = 80 ] || run=$run-lora

  local set validation=
  for set in aime24 aime25 amc23 math500 minerva olympiad; do
    validation+=${validation:+,}$DATA/$set.parquet
  done

  local overrides=(
    # The recipe, and the word that picks the allocator; its options are in recipe/allocator/<word>.yaml.
    # Without the plugin the second line is an error, and not silently plain PPO.
    "+recipe=$recipe"
    "allocator=$allocator"
    ${control[@]+"${control[@]}"}

    # Budget: prompts x rollouts responses a step, however they are spread over the prompts.
    "data.train_batch_size=$prompts"
    "actor_rollout_ref.rollout.n=$rollouts"
    "trainer.total_training_steps=$last"
    # With 8 rollouts a prompt the budget is three visits to each prompt of DAPO-Math-17k, with one it is 24.
    # Steps decide the run's length, not epochs.
    trainer.total_epochs=100
    # Where a run ends whose steps cost less (or, after `rollout.n=16`, more). An error if it can't get that
    # far.
    "+trainer.total_rollouts=$budget"
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

    # Update: optimizer steps with 512 responses each at most and no padding rows, so two of them where a step
    # has 1,024.
    actor_rollout_ref.actor.strategy=fsdp2
    "actor_rollout_ref.actor.ppo_mini_batch_size=$mini"
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
    # A validation takes as many responses as 9 training steps of 1,024.
    "trainer.test_freq=$((between / rows))"

    # A rerun of the same command resumes from the last checkpoint.
    "trainer.save_freq=$((between / rows))"
    trainer.max_actor_ckpt_to_keep=2

    # Names and places. Method and shape are in the name, since such runs must not resume each other.
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
  local command=(
    python -m verl.trainer.main_ppo "${overrides[@]}" "$@" ${machine[@]+"${machine[@]}"}
    ${further[@]+"${further[@]}"}
  )
  if $dry; then
    printf 'PYTHONPATH=%q' "$path"
    printf ' %q' "${command[@]}"
    printf '\n'
    return
  fi
  PYTHONPATH=$path exec "${command[@]}"
}

# Adds to `machine` what one card needs. It comes after the overrides of the model's size, and wins.
single() {
  local graphs='{"mode":0,"cudagraph_mode":"FULL_DECODE_ONLY"}'
  machine=(
    # A quick start: CUDA graphs without compilation decode as fast, and the run starts a minute earlier.
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.compilation_config='$graphs'"
    actor_rollout_ref.actor.use_torch_compile=False
    actor_rollout_ref.actor.fsdp_config.use_torch_compile=False
    # Without compilation the entropy would make further copies of all logits.
    actor_rollout_ref.actor.entropy_from_logits_with_chunking=True
    # Fewer processes to start than verl's 8 of each.
    actor_rollout_ref.rollout.agent.num_workers=2
    reward.num_workers=4
    transfer_queue.backend.SimpleStorage.num_data_storage_units=2
    data.dataloader_num_workers=0
    +ray_kwargs.ray_init.include_dashboard=False
  )
  if [ "$memory" = 80 ]; then
    # The whole of Adam's state stays beside vLLM while it samples.
    machine+=(actor_rollout_ref.rollout.gpu_memory_utilization=0.5)
    return
  fi
  machine+=(
    # Weights, gradients and Adam of all parameters take more than 24 GB. So an adapter is trained: the
    # weights stay as they are, and only the adapter has gradients and Adam's state.
    actor_rollout_ref.model.lora_rank=32
    actor_rollout_ref.model.lora_alpha=32
    # An adapter's usual rate is ten times that of full fine-tuning.
    actor_rollout_ref.actor.optim.lr=1e-5
    # vLLM reads the weights itself, and is then sent the adapter only.
    actor_rollout_ref.rollout.load_format=safetensors
    # While vLLM samples, the trainer's weights wait in host memory.
    actor_rollout_ref.actor.fsdp_config.param_offload=True
    # One full-length response, or several short ones, in a micro-batch.
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096
  )
}
