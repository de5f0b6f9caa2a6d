# shellcheck shell=bash disable=SC2154  # code is the sourcing script's
# Sourced at the end of a batch script, on the host. Puts a run that stopped with a checkpoint back into the queue.
# Needs $code, the worker's exit code; 75 means such a run. A worker of the launcher writes the file $SEVAL_AGAIN
# instead, if it makes progress. If an array element has several runs, its exit code says nothing about a single run;
# the runs that depend on them check the records themselves.
# A signal reaches every process of a job step. If Apptainer mounts a SIF without root, this includes the server of its
# files. The server dies, and the run ends with a bus error (7, or 135 in a shell). It resumes from its last checkpoint.
if [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ] && { [ "$code" = 7 ] || [ "$code" = 135 ]; }; then
  code=75
  [ -z "${SEVAL_AGAIN:-}" ] || touch "$SEVAL_AGAIN"
fi
if [ -e "${SEVAL_AGAIN:-}" ] || { [ -z "${SEVAL_AGAIN:-}" ] && [ "$code" = 75 ]; }; then
  rm -f "${SEVAL_AGAIN:-}"
  # only this element of an array: the bare job number would mean the whole array
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID}
  state=
  unset "${!SQUEUE_@}" "${!SCONTROL_@}" SLURM_CLUSTERS # by which a user filters what squeue prints
  for pause in 0 5 10 20 40; do # the controller may be restarting
    sleep "$pause"
    state=$(squeue --noheader --jobs "$job" --format %T) && break
  done
  # A cancelled job is COMPLETING by now and is not requeued.
  if [ "$state" = RUNNING ] && [ "${SEVAL_REQUEUE:-1}" = 1 ]; then
    scontrol requeue "$job" && sleep 600 # which ends this script
  fi
  exit 75
fi
[ "${SEVAL_PACKED:-0}" = 1 ] && exit 0
exit "$code"
