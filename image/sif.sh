#!/bin/sh
# Turn the image at hand into a SIF. Environment: ENGINE, IMAGE, APPTAINER (the command), SIF; more arguments go to the build.
set -eu
cd "$(dirname "$0")/.."
. image/engine.sh
. image/apptainer.sh
find_apptainer || { echo "error: $why" >&2 && exit 2; }
ENGINE=${ENGINE:-docker podman}
find_engine
archive=$(mktemp -d "$PWD/.sif.XXXXXX")
trap 'rm -rf "$archive"' EXIT
case $ENGINE in podman) format="--format docker-archive" ;; esac
# shellcheck disable=SC2086  # words
$ENGINE save ${format:-} -o "$archive/seval.tar" "${IMAGE:-seval}:${TAG:-latest}"
$APPTAINER build --force --build-arg BOOTSTRAP=docker-archive --build-arg "BASE_IMAGE=$archive/seval.tar" "$@" \
  "${SIF:-seval.sif}" Apptainer.def
ls -l "${SIF:-seval.sif}"
