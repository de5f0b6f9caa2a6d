#!/bin/sh
# Build the image from the last commit, so that its revision describes its content. Arguments are passed to the build.
# Environment: ENGINE, BASE_IMAGE, DATASETS, LOCK, SOURCE, IMAGE (name of the image).
set -eu
cd "$(dirname "$0")/.."
. image/engine.sh
find_engine
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [ -e .git ]; then
  git archive HEAD | tar -x -C "$context"
  [ -z "$(git status --porcelain --untracked-files=no)" ] ||
    echo "note: uncommitted changes are not in the image; it contains commit $(revision)" >&2
else # an unpacked release; .dockerignore says what is copied
  tar -c --exclude=./.venv --exclude=./runs --exclude='./data/raw' . | tar -x -C "$context"
fi
for name in ${DATASETS:=tiny}; do
  if [ -f "data/$name.h5" ] && [ ! -f "$context/data/$name.h5" ]; then cp "data/$name.h5" "$context/data/"; fi
done
if [ ! -f "$context/${LOCK:=requirements.lock}" ]; then cp "$LOCK" "$context/"; fi # as from make lock-cpu
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -r pyproject.toml +%s)}
export SOURCE_DATE_EPOCH
set -- --build-arg "VERSION=$(version)" --build-arg "REVISION=$(revision)" --build-arg "DATASETS=$DATASETS" \
  --build-arg "LOCK=$LOCK" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" "$@"
if [ -n "${BASE_IMAGE:-}" ]; then set -- --build-arg "BASE_IMAGE=$BASE_IMAGE" "$@"; fi
origin=$(git config --get remote.origin.url | sed 's#//[^/@]*@#//#') # without a password, if there is one
case $origin in https://*) SOURCE=${SOURCE:-$origin} ;; esac
if [ -n "${SOURCE:-}" ]; then set -- --build-arg "SOURCE=$SOURCE" "$@"; fi
case $ENGINE in # give all files and the image the time of the commit
podman) set -- --timestamp "$SOURCE_DATE_EPOCH" "$@" ;;
buildah) set -- --layers --timestamp "$SOURCE_DATE_EPOCH" "$@" ;;
esac
$ENGINE build -t "${IMAGE:=seval}:$(version)" -t "$IMAGE:latest" "$@" "$context"
echo "$IMAGE:$(version), built by $ENGINE"
