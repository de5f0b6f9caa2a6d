"""The versions that a result depends on. `python -m seval.versions` prints them without importing the packages."""

import json
import platform
from importlib import metadata

PACKAGES = ("seval", "torch", "torchvision", "numpy", "scipy", "h5py")


def packages() -> dict[str, str | None]:
    """The installed version of each package; None if it is not installed."""
    return {name: _version(name) for name in PACKAGES}


def versions() -> dict[str, str | None]:
    """The versions of the packages and of Python."""
    return packages() | {"python": platform.python_version()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(versions()))
