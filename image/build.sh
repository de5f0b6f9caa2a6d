#!/bin/sh
# Build the image from the last commit, so that its revision says what is in it; more arguments go to the build.
# Environment: ENGINE, BASE_IMAGE, DATASETS, LOCK, SOURCE, IMAGE (its name).
set -eu
cd "$(dirname "$0")/.."
. image/engine.sh
find_engine
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [ -e .git ]; then
  git archive HEAD | tar -x -C "$context"
  [ -z "$(git status --porcelain --untracked-files=no)" ] ||
    echo "note: uncommitted changes are not in the image, which holds commit $(revision)" >&2
else # an unpacked release; .dockerignore names what is taken
  tar -c --exclude=./.venv --exclude=./runs --exclude='./data/raw' . | tar -x -C "$context"
fi
for name in ${DATASETS:=tiny}; do
  if [ -f "data/$name.h5" ] && [ ! -f "$context/data/$name.h5" ]; then cp "data/$name.h5" "$context/data/"; fi
done
if [ ! -f "$context/${LOCK:=requirements.lock}" ]; then cp "$LOCK" "$context/"; fi # such as that of make lock-cpu
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -r pyproject.toml +%s)}
export SOURCE_DATE_EPOCH
set -- --build-arg "VERSION=$(version)" --build-arg "REVISION=$(revision)" --build-arg "DATASETS=$DATASETS" \
  --build-arg "LOCK=$LOCK" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" "$@"
if [ -n "${BASE_IMAGE:-}" ]; then set -- --build-arg "BASE_IMAGE=$BASE_IMAGE" "$@"; fi
origin=$(git config --get remote.origin.url | sed 's#//[^/@]*@#//#') # without a password that may be in it
case $origin in https://*) SOURCE=${SOURCE:-$origin} ;; esac
if [ -n "${SOURCE:-}" ]; then set -- --build-arg "SOURCE=$SOURCE" "$@"; fi
case $ENGINE in # all files and the image get the time of the commit
podman) set -- --timestamp "$SOURCE_DATE_EPOCH" "$@" ;;
buildah) set -- --layers --timestamp "$SOURCE_DATE_EPOCH" "$@" ;;
esac
$ENGINE build -t "${IMAGE:=seval}:$(version)" -t "$IMAGE:latest" "$@" "$context"
echo "$IMAGE:$(version), built by $ENGINE"
