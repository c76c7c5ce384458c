#!/usr/bin/env bash
# slurm/launch.sh LOGS MODULE [arguments]
# A module of Kindling on all of this job: srun starts one torchrun a node, which starts one process a GPU; on nodes
# without GPUs, as many processes as the job has tasks there. Called by train.sh and evaluate.sh.
set -euo pipefail

logs=$1 module=$2
shift 2

nodes=$SLURM_JOB_NUM_NODES
gpus=${SLURM_GPUS_ON_NODE:-${SLURM_GPUS_PER_NODE:-0}}
gpus=${gpus##*:} # h100:4 is four
tasks=$((${SLURM_NTASKS:-$nodes} / nodes))
processes=$((gpus > 0 ? gpus : tasks))
threads=$((${SLURM_CPUS_ON_NODE:-$processes} / processes))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}

# Workers that are started once more must not meet those that died in the store of the first start.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# The step is one task a node with everything the job has there, however the job counts its own tasks.
unset SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE SLURM_NTASKS_PER_GPU SLURM_GPUS_PER_TASK \
    SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK SLURM_TRES_PER_TASK

# The batch script runs on the first node. What differs from node to node is found there.
# shellcheck disable=SC2016
on_node='exec torchrun --rdzv-conf "is_host=$((SLURM_NODEID == 0))" --log-dir "$0/$SLURMD_NODENAME" "$@"'
exec srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=120 \
    bash -c "$on_node" "$logs" \
    --nnodes "$nodes" --nproc-per-node "$processes" \
    --rdzv-backend c10d --rdzv-endpoint "$(hostname):$((10000 + SLURM_JOB_ID % 20000))" --rdzv-id "$SLURM_JOB_ID" \
    --max-restarts 1 --signals-to-handle SIGTERM,SIGINT,SIGUSR1 --shutdown-timeout 120 --tee 3 \
    -m "$module" "$@"
