#!/usr/bin/env bash
#SBATCH --job-name=kindling-evaluate
#SBATCH --output=%x-%j.out
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --open-mode=append
# sbatch [options of sbatch] slurm/evaluate.sh RUN [options of kindling evaluate]
# Evaluates a trained run on all of the job.
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?is not set: submit this script with sbatch}"
source slurm/env.sh
set -u # not before: modules and activated environments seldom bear it
[[ -d ${1:-} ]] || { echo "slurm/evaluate.sh: '${1:-}' is not the folder of a run" >&2; exit 2; }
exec slurm/launch.sh "$1/logs" launch.evaluate "$@"
