# The image of the scripts, on Debian with Python: `make image`, or docker/podman/buildah build -t NAME:TAG .
# hdrhistogram needs a compiler where PyPI has no wheel of it (all but x86_64), so what is built in differs from what
# is run. Other images: give both, with the same Python at the same path.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim
ARG BUILD_IMAGE=docker.io/library/python:3.12

FROM ${BUILD_IMAGE} AS build
WORKDIR /opt/performance
COPY requirements.lock /build/
# pbr and setuptools build hdrhistogram and are not used at run time: here with their hashes, then gone
RUN python3 -m venv --without-pip /opt/venv \
 && awk '/^[a-z]/ {wanted = /^(pbr|setuptools)==/} wanted' /build/requirements.lock > /build/build.lock \
 && export PIP_PYTHON=/opt/venv/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
 && python3 -m pip install --require-hashes -r /build/build.lock \
 && python3 -m pip install --require-hashes --no-build-isolation -r /build/requirements.lock \
 && python3 -m pip uninstall --yes --quiet pbr setuptools
COPY *.py LICENSE ./
COPY kafka kafka
COPY perf perf
COPY data/data.json data/
# readable for any user whatever the modes in the working copy; compiled here, because the root file system is read-only
RUN chmod -R u=rwX,go=rX . && /opt/venv/bin/python -m compileall -q .

FROM ${BASE_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Latency test for Kafka streams pipelines" \
      org.opencontainers.image.description="Sends a data set to a topic; measures how long a streams operator takes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/performance /opt/performance
# not below /tmp, where people mount their folder
WORKDIR /opt/performance
ENV PATH=/opt/venv/bin:${PATH} PYTHONDONTWRITEBYTECODE=1
# a number, so that Kubernetes can see that it is not root; any other user with group 0 will do
USER 1001:0
# podman and buildah warn here: what they build has no health check in any case
HEALTHCHECK NONE
# started without a shell, so that SIGTERM reaches Python
CMD ["python", "PerfConsumer.py", "--help"]
