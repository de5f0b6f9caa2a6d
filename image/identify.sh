#!/bin/sh
# Build step: write the package metadata that pip would (version, entry points), and the identity of this image.
set -eu
cd /opt/seval
python -c 'from setuptools import setup; setup()' -q egg_info
# In Apptainer the caller's environment overrides the image's, but the caller must not choose the image's identity.
printf 'export SEVAL_IMAGE="seval:%s" SEVAL_REVISION="%s"\n' "$1" "$2" >image/identity.sh
PYTHONHASHSEED=0 python -m compileall -qq --invalidation-mode unchecked-hash .
chmod -R a+rX,go-w .
