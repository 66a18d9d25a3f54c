#!/usr/bin/env bash
# Makes base images where no registry can be reached: Debian with Python by debootstrap (as root; 45 s, once), and on
# top of it one that is laid out as Red Hat's. `make image BASE_IMAGE=… BUILD_IMAGE=…` and `make image-ubi BASE_IMAGE=…`
# build on them.
set -euo pipefail
cd "$(dirname "$0")"
debian=localhost/kafka-performance-base:bookworm

if ! podman image exists $debian; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" >/dev/null
    rm -rf "$root"/var/cache/apt/archives/*.deb
    # an imported image has no PATH
    tar -C "$root" -c . | podman import --quiet \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - $debian
fi
podman build --quiet --build-arg BASE_IMAGE=$debian --tag localhost/kafka-performance-base:ubi-layout \
    --file ubi-layout.Dockerfile .
