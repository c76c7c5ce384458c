#!/usr/bin/env bash
#SBATCH --job-name=kindling-embed
#SBATCH --output=%x-%j.out
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --requeue
#SBATCH --open-mode=append
# sbatch --gpus=1 [options of sbatch] slurm/embed.sh DATASET --encoder MODEL [options of kindling embed]
# Vectors of item texts, into a prepared dataset.
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?is not set: submit this script with sbatch}"
source slurm/env.sh
set -u # not before: modules and activated environments seldom bear it
exec python -m launch.embed "$@"
