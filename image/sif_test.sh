#!/bin/sh
# Use the SIF as on an unknown cluster. Environment: APPTAINER, SIF. Without Apptainer it is skipped, with the reason.
set -eu
cd "$(dirname "$0")/.."
. image/apptainer.sh
find_apptainer || { echo "skipped: $why" && exit 0; }
SIF=${SIF:-seval.sif}
if [ ! -f "$SIF" ]; then echo "error: no $SIF; make sif builds it" >&2 && exit 2; fi
. image/check.sh
out=$(mktemp -d)
log=$out/.log
trap 'rm -rf "$out"' EXIT
chmod 777 "$out"
mkdir "$out/tmp"
chmod 1777 "$out/tmp"
# Root can choose the user; anybody else already is an arbitrary user.
if [ "$(id -u)" = 0 ]; then user="--security uid:12345 --security gid:12345"; else user=; fi
in_image() {
  case $1 in
  python) verb="exec" ;;
  *) verb="run" ;;
  esac
  # shellcheck disable=SC2086  # words
  $APPTAINER $verb --containall $user --net --network none --bind "$out:/work" --pwd /work --bind "$out/tmp:/tmp" \
    --env OMP_NUM_THREADS=1 "$SIF" "$@"
}
step "help" in_image --help
step "apptainer test" $APPTAINER test --containall --bind "$out/tmp:/tmp" "$SIF"
tail -n 1 "$log"
check
step "labels" $APPTAINER inspect --labels "$SIF"
cat "$log"
step "run-help" $APPTAINER run-help "$SIF"
