#!/bin/sh
# Build step: keep only the named data sets, prepare those that are missing, verify all of them.
set -eu
cd /opt/seval
export SEVAL_DATA=/opt/seval/data
for file in data/*.h5; do
  name=$(basename "$file" .h5)
  case " $* " in
  *" $name "*) ;;
  *) rm -f "$file" ;;
  esac
done
for name in "$@"; do
  if [ ! -f "data/$name.h5" ]; then python repro/prepare.py "$name" --download; fi
  python repro/prepare.py "$name" --verify
done
rm -rf data/raw
