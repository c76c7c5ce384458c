#!/usr/bin/env bash
#SBATCH --job-name=kindling-prepare
#SBATCH --output=%x-%j.out
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --requeue
#SBATCH --open-mode=append
# sbatch [options of sbatch] slurm/prepare.sh SOURCE --out DATASET [options of kindling prepare]
# Turns a log of any known format into one prepared dataset.
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?is not set: submit this script with sbatch}"
source slurm/env.sh
set -u # not before: modules and activated environments seldom bear it
exec python -m launch.prepare "$@"
