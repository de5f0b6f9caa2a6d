#!/bin/sh
# Use the image as on an unknown cluster: arbitrary user, no capabilities, read-only root, no network.
# Environment: ENGINE (docker or podman), IMAGE. Arguments are passed to every `run`.
set -eu
cd "$(dirname "$0")/.."
. image/engine.sh
ENGINE=${ENGINE:-docker podman}
find_engine
. image/check.sh
out=$(mktemp -d)
log=$out/.log
trap 'rm -rf "$out"' EXIT
chmod 777 "$out"
options=$*
in_image() {
  # shellcheck disable=SC2086  # words
  $ENGINE run --rm --interactive --user 12345:12345 --read-only --network none --cap-drop all \
    --security-opt no-new-privileges --tmpfs /tmp --volume "$out:/work" --env OMP_NUM_THREADS=1 --env EXPECTED_UID=12345 \
    $options "${IMAGE:-seval}:${TAG:-latest}" "$@"
}
step "help" in_image
step "smoke tests" in_image sh /opt/seval/image/smoke.sh
tail -n 1 "$log"
check
echo "$($ENGINE image inspect --format '{{.Size}}' "${IMAGE:-seval}:${TAG:-latest}" | awk '{printf "%.2f GB", $1 / 1e9}')," \
  "$($ENGINE image inspect --format '{{len .RootFS.Layers}}' "${IMAGE:-seval}:${TAG:-latest}") layers"
