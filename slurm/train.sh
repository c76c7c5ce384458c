#!/usr/bin/env bash
#SBATCH --job-name=kindling-train
#SBATCH --output=%x-%j.out
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
# sbatch [options of sbatch] slurm/train.sh CONFIG [key=value ...] [--strategy NAME] [--profile]
# Trains a run, or goes on with it, on all of the job. Near the time limit it saves, and queues itself again.
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?is not set: submit this script with sbatch}"
source slurm/env.sh
set -u # not before: modules and activated environments seldom bear it

run=$(python -m launch.train "$@" --print-folder)
mkdir -p "$run/logs"
requeued=$run/logs/requeued-$SLURM_JOB_ID # the step at which this job queued itself again
[[ ${SLURM_RESTART_COUNT:-0} -gt 0 ]] || rm -f "$requeued" # numbers of jobs come again

# A key of RUN/status.json. An exit code would say nothing: a launcher turns all but 0 into 1.
status() {
    sed -n "s/.*\"$1\": *\"\{0,1\}\([a-z0-9]*\).*/\1/p" "$run/status.json" 2>/dev/null || true
}

fail() {
    echo "slurm/train.sh: $1" >&2
    exit "${2:-1}"
}

progressed() {
    [[ $(status step) -gt $(cat "$requeued" 2>/dev/null || echo 0) ]]
}

queue_again() {
    trap '' TERM USR1 # of the requeue itself, which everything in the job gets
    status step >"$requeued"
    scontrol requeue "$SLURM_JOB_ID"
}

# Whether the time limit is at most so many seconds away; it is known once it was announced.
limit_in() {
    [[ $limit =~ ^[0-9]+$ && $(date +%s) -ge $((limit - $1)) ]]
}

asked='' limit=''
stop() {
    if [[ $1 == USR1 ]]; then
        limit=$(SLURM_TIME_FORMAT=%s squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e) ||
            echo "slurm/train.sh: when the time limit comes is not known" >&2
        asked=${asked:-USR1}
    elif [[ $asked != USR1 ]] || ! limit_in 5; then
        asked=TERM # scancel or pre-emption; that of a limit which was announced is no new reason
    fi
    touch "$run/STOP" || true # where the disk is full the run may still end, or be queued again below
}
trap 'stop USR1' USR1 # the time limit is near
trap 'stop TERM' TERM # scancel, or pre-emption and scontrol requeue: Slurm queues the job again by itself

before=$(cat "$run/status.json" 2>/dev/null || true)
slurm/launch.sh "$run/logs" launch.train "$@" ${KINDLING_STAGE:+--stage "$KINDLING_STAGE"} &
step=$!
while kill -0 "$step" 2>/dev/null; do
    if [[ -z $asked ]]; then
        wait "$step" || true # ends when the step does, or at once when a signal comes
    else
        touch "$run/STOP" 2>/dev/null || true # again and again: a run that is still starting takes old files away
        # Slurm lets the run go on for some more seconds after this, as it does after the limit. The state is read last:
        # a run may end, and save, between two looks.
        if [[ $asked == USR1 ]] && limit_in 30 && progressed && [[ $(status state) == @(running|stopped) ]]; then
            queue_again
            wait "$step" || true
            rm -f "$run/STOP"
            exit 0
        fi
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

progressed ||
    fail "not queued again, since the job got no further than step $(status step): it needs a longer --time" 3
queue_again
