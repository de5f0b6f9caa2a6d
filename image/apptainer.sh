# shellcheck shell=sh disable=SC2034,SC2154  # what it sets and reads is of the sourcing script
# Sourced. find_apptainer sets APPTAINER to the first command that works; if none does, it returns false and sets $why.
find_apptainer() {
  for command in "${APPTAINER:-apptainer}" singularity; do
    program=${command%% *}
    if command -v "$program" >/dev/null && $command --version >/dev/null 2>&1; then
      APPTAINER=$command
      return 0
    fi
  done
  why="no Apptainer here (${APPTAINER:-apptainer} does not run)"
  return 1
}
