#!/bin/sh
# Start a SLURM and test the launcher with the real image as its worker: with Podman if there is an image, with
# Apptainer if there is a SIF. As root, after slurm/dev_cluster.sh install. Uses IMAGE, TAG, APPTAINER, SIF, PYTHON.
set -eu
cd "$(dirname "$0")/.."
. image/apptainer.sh
SIF=${SIF:-seval.sif}
image=${IMAGE:-seval}:${TAG:-latest}
try() { # try NAME COMMAND: test with this worker command; {folder} is the folder that the worker must see
  echo "$1: $2"
  SEVAL_WORKER=$2 OMP_NUM_THREADS=1 "${PYTHON:-.venv/bin/python}" -m pytest -m cluster -k real_image --durations=0 tests/launch/test_cluster.py
}
eval "$(slurm/dev_cluster.sh fresh)"
trap 'slurm/dev_cluster.sh stop' EXIT
if podman image exists "$image" 2>/dev/null; then
  # pass only the scheduler's variables: PATH must stay the image's
  try podman "podman run --rm --user \$(id -u):\$(id -g) --network none --volume {folder}:{folder} --workdir {folder} --env 'SLURM_*' \
--env 'SUBMITIT_*' --env 'SEVAL_*' --env 'CUDA_*' --env OMP_NUM_THREADS $image python"
else
  echo "skipped: Podman has no $image here; make image builds it"
fi
if ! find_apptainer; then
  echo "skipped: $why"
elif [ ! -e "$SIF" ]; then
  echo "skipped: no $SIF; make sif builds it"
else
  try apptainer "$APPTAINER exec --bind {folder} $(realpath "$SIF") python"
fi
