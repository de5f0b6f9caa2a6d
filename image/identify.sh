#!/bin/sh
# Build step: what the installation of a package leaves beside its code (version, entry points), and who this image is.
set -eu
cd /opt/seval
python -c 'from setuptools import setup; setup()' -q egg_info
# Apptainer lets the caller's environment win over the image's, but an image's identity is not the caller's to choose.
printf 'export SEVAL_IMAGE="seval:%s" SEVAL_REVISION="%s"\n' "$1" "$2" >image/identity.sh
PYTHONHASHSEED=0 python -m compileall -qq --invalidation-mode unchecked-hash .
chmod -R a+rX,go-w .
