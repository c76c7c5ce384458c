# shellcheck shell=bash
# The only file that knows the cluster; every script here reads it first. Nothing has to be changed where `make setup` was
# used, or where the environment of the shell that submits is the right one (sbatch hands it on).

# module load cuda python

if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    # shellcheck source=/dev/null
    source .venv/bin/activate
fi

# A folder on a disk of each node, for example "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}": training reads the dataset from a copy
# there, made once a node. Empty: it is read where it lies.
KINDLING_STAGE=${KINDLING_STAGE:-}

# The network between the nodes, where it is not found by itself:
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
