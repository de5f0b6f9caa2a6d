# Sourced at the end of a batch script, on the host: a run that stopped with a checkpoint is put back into the queue.
# Needs $code, the worker's exit code: 75 is such a run. An element that packs several runs instead leaves the file
# $SEVAL_AGAIN; its own exit code says nothing of a single run, so what stands on them finds out by itself.
if [ "$code" = 75 ] || [ -e "${SEVAL_AGAIN:-}" ]; then
  rm -f "${SEVAL_AGAIN:-}"
  state=
  for pause in 0 5 10 20 40; do # the controller may be restarting
    sleep "$pause"
    state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T) && break
  done
  # A cancelled job is COMPLETING by now: only one that the scheduler would go on with is requeued.
  if [ "$state" = RUNNING ] && [ "${SEVAL_REQUEUE:-1}" = 1 ]; then
    scontrol requeue "$SLURM_JOB_ID" && sleep 600 # which ends this script
  fi
  exit 75
fi
[ "${SEVAL_PACKED:-0}" = 1 ] && exit 0
exit "$code"
