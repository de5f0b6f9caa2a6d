# shellcheck shell=sh disable=SC2034,SC2154  # what it sets and reads is of the sourcing script
# Sourced by test.sh and sif_test.sh. They define in_image, which passes its arguments to the image and runs it as an
# arbitrary user, without network, with a read-only root, in the folder $out.
SETTINGS="SOLVER.MAX_ITER 120 PERIODS.EVAL 30 PERIODS.CHECKPOINT 60 RUNTIME.THREADS 1 RUNTIME.PROGRESS False"
step() { # step WHAT COMMAND...: runs the command and prints its time, or its output if it fails
  what=$1
  shift
  start=$(date +%s)
  if "$@" >"$log" 2>&1; then
    echo "ok      $what ($(($(date +%s) - start)) s)"
  else
    echo "FAILED  $what" >&2
    tail -n 40 "$log" >&2
    exit 1
  fi
}
confined() {
  in_image python - <<'PY'
import getpass, os, socket, sys
import repro, seval, torch
assert os.getuid() == int(os.environ.get("EXPECTED_UID", os.getuid())) != 0, os.getuid()
assert sys.prefix == "/opt/venv" and seval.__file__ == "/opt/seval/seval/__init__.py", (sys.prefix, seval.__file__)
assert os.environ["SEVAL_IMAGE"].startswith("seval:"), os.environ
for folder in ("/", "/opt/seval", "/opt/venv", "/etc", "/usr"):
    try:
        open(os.path.join(folder, "written"), "w")
    except OSError:
        continue
    raise SystemExit(f"{folder} can be written")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
except TimeoutError:
    raise SystemExit("there is a network")
except OSError as error:
    print("no network:", error)
print("user", os.getuid(), getpass.getuser(), "torch", torch.__version__, "GPUs", torch.cuda.device_count())
PY
}
recorded() { # check that every record names the image and the commit
  in_image python - <<'PY'
import json, os, pathlib
records = [json.loads(path.read_text()) for path in sorted(pathlib.Path("runs").glob("*/record.json"))]
assert len(records) == 2, f"{len(records)} records instead of 2"
for record in records:
    origin = record["provenance"]
    assert origin["image"] == os.environ["SEVAL_IMAGE"], origin
    assert (origin["commit"] or "") == os.environ["SEVAL_REVISION"], origin
    assert all(origin["packages"].values()), origin
print(origin)
PY
}
check() {
  cat >"$out/small.yaml" <<YAML
title: Both phases, small
folder: tiny
set: [$(echo "$SETTINGS" | sed 's/ /, /g')]
seeds: [0]
protocol: last
columns: {tiny: {}}
rows: {SEVAL: {config: fixmatch_seval_load, offset: seval}}
YAML
  step "arbitrary user, read-only root, no network" confined
  cat "$log"
  # shellcheck disable=SC2086  # words
  step "SEVAL, phase 1" in_image --config-file configs/tiny/fixmatch_seval_estim.yaml SEED 0 $SETTINGS
  # shellcheck disable=SC2086
  step "SEVAL, phase 2" in_image --config-file configs/tiny/fixmatch_seval_load.yaml SEED 0 $SETTINGS
  tail -n 6 "$log"
  step "records name image, commit and versions" recorded
  cat "$log"
  step "the table of these runs" in_image repro/aggregate.py --table small.yaml --strict
  cat "$log"
  step "nothing left for repro/submit.py" in_image repro/submit.py --table small.yaml
  step "the demo table, empty" in_image repro/aggregate.py --table demo
  test -f "$out/paper_tables/demo.md"
}
