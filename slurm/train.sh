#!/usr/bin/env bash
#SBATCH --job-name=kindling-train
#SBATCH --output=%x-%j.out
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
# sbatch [options of sbatch] slurm/train.sh CONFIG [key=value ...] [--strategy NAME]
# Trains a run, or goes on with it, on all of the job. Near the time limit it saves, and queues itself again.
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?is not set: submit this script with sbatch}"
source slurm/env.sh
set -u # not before: modules and activated environments seldom bear it

run=$(python -m launch.train "$@" --print-folder)
mkdir -p "$run/logs"
requeued=$run/logs/requeued-$SLURM_JOB_ID # the step at which this job queued itself again

# A key of RUN/status.json. An exit code would say nothing: a launcher turns all but 0 into 1.
status() {
    sed -n "s/.*\"$1\": *\"\{0,1\}\([a-z0-9]*\).*/\1/p" "$run/status.json"
}

fail() {
    echo "slurm/train.sh: $1" >&2
    exit "${2:-1}"
}

asked=
stop() {
    asked=${asked:-$1} # the first word counts: at the time limit itself Slurm sends TERM after our USR1
    touch "$run/STOP"
}
trap 'stop USR1' USR1 # the time limit is near
trap 'stop TERM' TERM # pre-emption, or scontrol requeue: Slurm queues the job again by itself

before=$(cat "$run/status.json" 2>/dev/null || true)
slurm/launch.sh "$run/logs" launch.train "$@" ${KINDLING_STAGE:+--stage "$KINDLING_STAGE"} &
step=$!
while kill -0 "$step" 2>/dev/null; do
    if [[ -z $asked ]]; then
        wait "$step" || true # ends when the step does, or at once when a signal comes
    else
        touch "$run/STOP" # again and again: a run that is still starting takes old STOP files away
        sleep 1
    fi
done
rm -f "$run/STOP"

[[ -f $run/status.json && $(cat "$run/status.json") != "$before" ]] || fail "training did not start; see $run/logs"
case $(status state) in
done) exit 0 ;;
stopped) [[ $asked == USR1 ]] || fail "stopped and saved at step $(status step); the same command goes on" 3 ;;
*) fail "training failed at step $(status step); see $run/logs" ;;
esac

[[ $(status step) -gt $(cat "$requeued" 2>/dev/null || echo 0) ]] ||
    fail "not queued again, since the job got no further than step $(status step): it needs a longer --time" 3
status step >"$requeued"
scontrol requeue "$SLURM_JOB_ID"
