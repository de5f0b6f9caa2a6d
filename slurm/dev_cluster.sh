#!/usr/bin/env bash
# A real SLURM on one machine, to try the launcher without a cluster: four virtual nodes with two simulated GPUs each,
# a partition `gpu`, and `high`, which preempts it. Needs root and Debian's packages; writes only to its folder.
#
#   slurm/dev_cluster.sh install     apt packages: slurm-wlm, slurmdbd, munge, mariadb-server
#   slurm/dev_cluster.sh start       start; if it is already up, only print the environment
#   slurm/dev_cluster.sh fresh       forget all jobs, then start
#   slurm/dev_cluster.sh stop | restart-controller | status
#
# The last line that `start` and `fresh` print is the command to run next: export SLURM_CONF=...
# Settings (environment): SEVAL_SLURM_DIR (folder for its state), NODES, GPUS, CPUS, MEMORY_MB (per node), PORT.
set -euo pipefail
STATE=${SEVAL_SLURM_DIR:-/var/tmp/seval-slurm}
NODES=${NODES:-4} GPUS=${GPUS:-2} CPUS=${CPUS:-4} MEMORY_MB=${MEMORY_MB:-20000} PORT=${PORT:-17817}
DBD_PORT=$((PORT + 2)) SQL_PORT=$((PORT + 3)) NODE_PORT=$((PORT + 100))
HOST=$(uname -n)
HOST=${HOST%%.*}
# Nothing that a user or an allocation sets may filter what the commands below print.
for name in $(compgen -e | grep -E '^S(ACCT|ALLOC|BATCH|CANCEL|CONTROL|INFO|LURM|QUEUE|RUN)_'); do unset "$name"; done
export SLURM_CONF=$STATE/etc/slurm.conf

# Whether the process in a pid file is alive and is that daemon: the number may belong to another program by now.
alive() {
  local pid name
  [ -s "$1" ] && read -r pid 2>/dev/null <"$1" || return 1
  name=$(basename "$1" .pid) && name=${name%%-*}
  kill -0 "$pid" 2>/dev/null && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${name/mariadb/mariadbd}" ]
}
wait_for() {
  local what=$1 n=0
  shift
  until "$@" >/dev/null 2>&1; do
    n=$((n + 1))
    [ $n -le 300 ] || { echo "error: $what did not come up; its log is in $STATE/log" >&2; exit 1; }
    sleep 0.1
  done
}
# Clients that start before their daemon listens wait forever, so check the port first.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends slurm-wlm slurm-wlm-basic-plugins slurmdbd munge mariadb-server
}

configure() {
  mkdir -p "$STATE"/{etc,run,log,state,db,spool,dev,munge,munge-run}
  chmod 755 "$STATE" "$STATE"/*
  [ -s "$STATE/munge/key" ] || dd if=/dev/urandom of="$STATE/munge/key" bs=128 count=1 status=none
  chown -R munge: "$STATE/munge" "$STATE/munge-run"
  chmod 700 "$STATE/munge"
  chmod 400 "$STATE/munge/key"
  chmod 777 "$STATE/run"
  # slurmd needs character devices, and takes the GPU's number from the name
  for i in $(seq 0 $((GPUS - 1))); do [ -c "$STATE/dev/gpu$i" ] || mknod "$STATE/dev/gpu$i" c 1 3; done
  local gpus=gpu0
  [ "$GPUS" = 1 ] || gpus="gpu[0-$((GPUS - 1))]"
  echo "NodeName=n[1-$NODES] Name=gpu File=$STATE/dev/$gpus" >"$STATE/etc/gres.conf"
  # cred_expire is also how long a requeued job waits before it starts again.
  cat >"$STATE/etc/slurm.conf" <<CONF
ClusterName=seval
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$STATE/munge-run/munge.sock,cred_expire=5
StateSaveLocation=$STATE/state
SlurmdSpoolDir=$STATE/spool/%n
SlurmctldPidFile=$STATE/run/slurmctld.pid
SlurmdPidFile=$STATE/run/slurmd-%n.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmdLogFile=$STATE/log/slurmd-%n.log
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2,bf_max_job_test=1000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=256
MaxArraySize=1001
MaxJobCount=20000
JobRequeue=1
KillWait=5
MinJobAge=300
CompleteWait=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PriorityType=priority/basic
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$STATE/munge-run/munge.sock
AccountingStorageTRES=gres/gpu
NodeName=n[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((NODE_PORT + 1))-$((NODE_PORT + NODES))] CPUs=$CPUS RealMemory=$MEMORY_MB Gres=gpu:$GPUS State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=7-00:00:00 DefaultTime=60 State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL MaxTime=7-00:00:00 DefaultTime=60 State=UP PriorityTier=10 PreemptMode=OFF
CONF
  cat >"$STATE/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$STATE/munge-run/munge.sock
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=root
LogFile=$STATE/log/slurmdbd.log
PidFile=$STATE/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$SQL_PORT
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
  chmod 600 "$STATE/etc/slurmdbd.conf"
}

start_munge() {
  alive "$STATE/run/munged.pid" && return
  rm -f "$STATE/munge-run/munge.sock"*
  setpriv --reuid=munge --regid=munge --init-groups /usr/sbin/munged --key-file="$STATE/munge/key" \
    --socket="$STATE/munge-run/munge.sock" --pid-file="$STATE/munge-run/munged.pid" \
    --log-file="$STATE/munge/munged.log" --seed-file="$STATE/munge/seed" --num-threads=4
  ln -sf "$STATE/munge-run/munged.pid" "$STATE/run/munged.pid"
}

sql() { mariadb --no-defaults -S "$STATE/run/mysql.sock" -u root "$@"; }

start_accounting() {
  if ! alive "$STATE/run/mariadb.pid"; then
    if [ ! -d "$STATE/db/mysql" ]; then
      chown mysql: "$STATE/db"
      mariadb-install-db --no-defaults --user=mysql --datadir="$STATE/db" --skip-test-db \
        --auth-root-authentication-method=normal --skip-name-resolve >"$STATE/log/mariadb-install.log" 2>&1
    fi
    setsid mariadbd --no-defaults --user=mysql --datadir="$STATE/db" --socket="$STATE/run/mysql.sock" \
      --pid-file="$STATE/run/mariadb.pid" --bind-address=127.0.0.1 --port=$SQL_PORT --skip-name-resolve \
      --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0 \
      --innodb-lock-wait-timeout=900 --log-error="$STATE/log/mariadb.log" </dev/null >/dev/null 2>&1 &
    wait_for mariadb sql -e "SELECT 1"
    sql -e "CREATE DATABASE IF NOT EXISTS slurm_acct_db; CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
      GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'"
  fi
  if ! alive "$STATE/run/slurmdbd.pid"; then
    slurmdbd
    wait_for slurmdbd listens $DBD_PORT
    wait_for slurmdbd timeout 3 sacctmgr -n show cluster
  fi
}

start_controller() {
  alive "$STATE/run/slurmctld.pid" && return
  slurmctld "$@"
  wait_for slurmctld listens "$PORT"
  wait_for slurmctld timeout 3 scontrol ping
}

all_nodes_up() { [ "$(timeout 3 sinfo -h -N -p gpu -t idle,alloc,mix,comp -o %N | wc -l)" -eq "$NODES" ]; }

start() {
  command -v slurmctld slurmd slurmdbd munged mariadbd >/dev/null ||
    { echo "error: SLURM is not installed; as root: $0 install" >&2; exit 2; }
  [ "$(id -u)" = 0 ] || { echo "error: the daemons need root" >&2; exit 2; }
  configure
  start_munge
  start_accounting
  start_controller -i
  for i in $(seq 1 "$NODES"); do
    alive "$STATE/run/slurmd-n$i.pid" || { mkdir -p "$STATE/spool/n$i"; slurmd -N "n$i"; }
  done
  wait_for nodes all_nodes_up
  echo "export SLURM_CONF=$SLURM_CONF"
}

end() { # end the process of a pid file
  alive "$1" && kill "$(cat "$1")" || true
  for _ in $(seq 100); do
    alive "$1" || { rm -f "$1"; return 0; }
    sleep 0.1
  done
  kill -9 "$(cat "$1")" || true
  rm -f "$1"
}

stop() {
  if alive "$STATE/run/slurmctld.pid"; then # first the jobs, because job steps outlive slurmd
    timeout 5 scancel -u "$(id -un)" 2>/dev/null || true
    for _ in $(seq 100); do [ -n "$(timeout 3 squeue -h 2>/dev/null)" ] || break; sleep 0.1; done
  fi
  for file in "$STATE"/run/slurmd-*.pid "$STATE"/run/{slurmctld,slurmdbd,mariadb,munged}.pid; do end "$file"; done
}

case ${1:-help} in
  install) install ;;
  start) start ;;
  stop) stop ;;
  fresh) stop; rm -rf "$STATE"; start ;;
  restart-controller) end "$STATE/run/slurmctld.pid"; start_controller ;;
  status) sinfo -N -o '%N %T %c %m %G'; squeue ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" ;;
esac
