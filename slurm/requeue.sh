# shellcheck shell=bash disable=SC2154  # code is the sourcing script's
# Sourced at the end of a batch script, on the host: a run that stopped with a checkpoint is put back into the queue.
# Needs $code, the worker's exit code: 75 is such a run. A worker of the launcher instead leaves the file $SEVAL_AGAIN,
# unless it makes no progress. The exit code of an element with several runs says nothing about each run, so a run that
# depends on one of them checks its prerequisite itself.
# A signal reaches every process of a job step. Where Apptainer mounts a SIF without root, the server of its files is one of
# them and is killed by it, and the run by a bus error (7, or 135 in a shell): it resumes from its last checkpoint.
if [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ] && { [ "$code" = 7 ] || [ "$code" = 135 ]; }; then
  code=75
  [ -z "${SEVAL_AGAIN:-}" ] || touch "$SEVAL_AGAIN"
fi
if [ -e "${SEVAL_AGAIN:-}" ] || { [ -z "${SEVAL_AGAIN:-}" ] && [ "$code" = 75 ]; }; then
  rm -f "${SEVAL_AGAIN:-}"
  # of an array only this element: the number without an index means the whole array
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID}
  state=
  for pause in 0 5 10 20 40; do # the controller may be restarting
    sleep "$pause"
    state=$(squeue --noheader --jobs "$job" --format %T) && break
  done
  # A cancelled job is COMPLETING by now: only a job that the scheduler would keep running is requeued.
  if [ "$state" = RUNNING ] && [ "${SEVAL_REQUEUE:-1}" = 1 ]; then
    scontrol requeue "$job" && sleep 600 # which ends this script
  fi
  exit 75
fi
[ "${SEVAL_PACKED:-0}" = 1 ] && exit 0
exit "$code"
