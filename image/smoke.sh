#!/bin/sh
# The part of the tests that says within a minute whether the environment works; it writes below /tmp only.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null  # written by the build; in an image, what is installed is compared with the lock
if [ -f image/identity.sh ]; then . image/identity.sh; fi
export OMP_NUM_THREADS=1
exec python -m pytest -p no:cacheprovider -k "not killed" tests/policy tests/test_config.py tests/test_evaluate.py \
  tests/test_image.py tests/test_losses.py tests/test_metrics.py tests/test_record.py tests/test_run.py \
  tests/test_run_resume.py tests/test_train.py "$@"
