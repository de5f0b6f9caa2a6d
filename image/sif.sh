#!/bin/sh
# Turn the current image into a SIF. Environment: ENGINE, IMAGE, APPTAINER (command), SIF. Arguments go to the build.
set -eu
cd "$(dirname "$0")/.."
. image/engine.sh
. image/apptainer.sh
find_apptainer || { echo "error: $why" >&2 && exit 2; }
find_engine
archive=$(mktemp -d .sif.XXXXXX)  # relative: the SIF keeps its name
trap 'rm -rf "$archive"' EXIT
image=${IMAGE:-seval}:${TAG:-latest}
case $ENGINE in
podman) podman save --format docker-archive -o "$archive/seval.tar" "$image" ;;
buildah) buildah push "$image" "docker-archive:$archive/seval.tar:$image" ;;
*) $ENGINE save -o "$archive/seval.tar" "$image" ;;
esac
$APPTAINER build --force --build-arg BOOTSTRAP=docker-archive --build-arg "BASE_IMAGE=$archive/seval.tar" "$@" \
  "${SIF:-seval.sif}" Apptainer.def
ls -l "${SIF:-seval.sif}"
