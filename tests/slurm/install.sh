#!/usr/bin/env bash
# Installs Slurm and munge from Debian's packages; nothing is started. Where that cannot be, the tests are skipped.
set -euo pipefail
if [[ -x /usr/sbin/slurmctld && -x /usr/sbin/slurmd && -x /usr/sbin/munged && -x /usr/bin/sbatch ]]; then
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; }; then
    echo "tests/slurm/install.sh: Slurm cannot be installed here, its tests are skipped" >&2
fi
