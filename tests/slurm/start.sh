#!/usr/bin/env bash
# tests/slurm/start.sh FOLDER          starts a Slurm of one node with its own munge; all of it lies in FOLDER
# tests/slurm/start.sh --stop FOLDER   stops it
# Clients find it by SLURM_CONF=FOLDER/slurm.conf. Root only; no systemd, no cgroups. The node says that it has four CPUs,
# whatever it has.
set -euo pipefail
PATH=$PATH:/usr/sbin

stop() {
    local daemon
    export SLURM_CONF=$folder/slurm.conf
    squeue --noheader --format=%i | xargs --no-run-if-empty scancel || true
    for _ in $(seq 80); do
        if [[ -z $(squeue --noheader 2>&1) ]]; then
            break
        fi
        sleep 0.5
    done
    for daemon in slurmd slurmctld munged; do
        if [[ -f $folder/$daemon.pid ]]; then
            kill "$(cat "$folder/$daemon.pid")" || true
        fi
    done
}

configure() {
    local host ports
    host=$(hostname -s)
    mapfile -t ports < <(python3 -c '
import socket
held = [socket.create_server(("", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held), sep="\n")')
    mkdir -p "$folder"/{state,spool,munge}
    chmod 711 "$folder" # munged refuses folders that others can write to
    chmod 700 "$folder/munge"
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
    cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
}

start() {
    configure
    export SLURM_CONF=$folder/slurm.conf
    munged --force --key-file "$folder/munge/key" --socket "$folder/munge.socket" --pid-file "$folder/munged.pid" \
        --seed-file "$folder/munge/seed" --log-file "$folder/munge/log"
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    for _ in $(seq 60); do
        if [[ $(sinfo --noheader --format=%t 2>/dev/null) == idle ]]; then
            return
        fi
        sleep 0.5
    done
    echo "the node did not become idle; see $folder/slurmctld.log and slurmd.log" >&2
    exit 1
}

if [[ $1 == --stop ]]; then
    folder=$(realpath "$2")
    stop
else
    mkdir -p "$1"
    folder=$(realpath "$1")
    start
fi
