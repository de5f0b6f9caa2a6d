"""Make small_imagenet127.h5, in the folder above this one, out of the batches of down-sampled ImageNet in this folder.

The same as `python repro/prepare.py small_imagenet127`, under the name and from the folder that the paper's code uses.
It changes no raw file, and a second call finds its work done.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    sys.path.insert(0, str(HERE.parents[1]))  # the checkout
    from repro.tables.interrupts import end_at_once

    end_at_once()
    from repro.prepare import abandon
    from repro.prepare import main as prepare

    end_at_once(abandon)
    root = os.environ.get("SEVAL_DATA") or str(HERE.parent)
    return prepare(["small_imagenet127", "--raw", str(HERE), "--root", root, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
