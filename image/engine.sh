# shellcheck shell=sh disable=SC2034,SC2154  # what it sets and reads is of the sourcing script
# Sourced. find_engine sets ENGINE to the first container engine that works; revision and version name the image.
find_engine() {
  for engine in ${ENGINE:-docker podman buildah}; do
    if command -v "$engine" >/dev/null && "$engine" info >/dev/null 2>&1; then
      ENGINE=$engine
      return
    fi
  done
  echo "error: none of ${ENGINE:-docker, podman, buildah} works here" >&2
  exit 2
}
revision() {
  echo "${REVISION:-$(git rev-parse HEAD 2>/dev/null || true)}"
}
version() {
  commit=$(revision | cut -c 1-10)
  echo "$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)-${commit:-unknown}"
}
