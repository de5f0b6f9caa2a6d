# One file for every variant:
#   docker build -t seval .                                             plain Debian with Python; drives GPUs too, since
#                                                                       the wheels of PyTorch bring their CUDA libraries
#   docker build --build-arg BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04 -t seval .            a CUDA base
#   docker build --build-arg LOCK=requirements-cpu.lock -t seval .      PyTorch's CPU build, see `make lock-cpu`
# `make image` does the same from the last commit, and writes its revision into the image and so into every record.
# For a release, BASE_IMAGE is pinned by digest (RELEASING.md).
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
# A CUDA base has no Python.
RUN python3 -c 'import ensurepip' 2>/dev/null || { apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*; }
# Caches go to /tmp, the one place besides the bound folders that can be written; the user needs neither name nor home.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/seval PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=seval LOGNAME=seval MPLCONFIGDIR=/tmp/matplotlib TORCH_HOME=/tmp/torch XDG_CACHE_HOME=/tmp/cache \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor TRITON_CACHE_DIR=/tmp/triton \
    SEVAL_DATA=/data

FROM base AS venv
ARG LOCK=requirements.lock
COPY ${LOCK} /opt/lock
# Byte code that is never checked against the time of its source: those times differ from build to build, and a
# read-only image could not renew it.
RUN python3 -m venv /opt/venv \
    && python -m pip install --no-cache-dir --no-compile --disable-pip-version-check --require-hashes -r /opt/lock \
    && { find /opt/venv -name __pycache__ -prune -exec rm -r {} + ; } \
    && { PYTHONHASHSEED=0 python -m compileall -qq --invalidation-mode unchecked-hash /opt/venv/lib || true; }

FROM venv AS code
ARG DATASETS=tiny
COPY . /opt/seval
RUN sh /opt/seval/image/bake.sh ${DATASETS}
ARG REVISION=
ARG VERSION=unknown
RUN sh /opt/seval/image/identify.sh "${VERSION}" "${REVISION}"

# The final stage takes the code from here, so there is no image whose smoke tests failed.
FROM code AS test
USER 10001:10001
RUN sh /opt/seval/image/smoke.sh

FROM venv AS final
COPY --from=test /opt/seval /opt/seval
# /data: prepared sets, those baked in unless a folder is mounted. /work: the working folder; runs/ and tables go there.
RUN echo 'seval:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'seval:x:10001:' >> /etc/group \
    && mkdir -p /data /work && ln -s /opt/seval/data/*.h5 /data
ARG BASE_IMAGE
ARG REVISION=
ARG VERSION=unknown
ARG SOURCE=
ENV SEVAL_REVISION=${REVISION} SEVAL_IMAGE=seval:${VERSION} \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="seval" \
    org.opencontainers.image.description="Imbalanced semi-supervised learning (arXiv 2407.05370)" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}"
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["sh", "/opt/seval/image/entrypoint.sh"]
CMD ["--help"]
