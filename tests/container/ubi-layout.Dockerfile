# Debian laid out as registry.access.redhat.com/ubi9/python-312, which cannot be reached from everywhere: a virtual
# environment in /opt/app-root that every bash activates, user 1001 of group 0, and an entry point that is a script.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN useradd --uid 1001 --gid 0 --no-create-home --home-dir /opt/app-root/src default \
 && python3 -m venv /opt/app-root \
 && mkdir /opt/app-root/src && chown -R 1001:0 /opt/app-root && chmod -R g=u /opt/app-root \
 && printf '#!/bin/bash\nexec "$@"\n' > /usr/bin/container-entrypoint && chmod +x /usr/bin/container-entrypoint
ENV HOME=/opt/app-root/src \
    PATH=/opt/app-root/src/.local/bin:/opt/app-root/src/bin:/opt/app-root/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    BASH_ENV=/opt/app-root/bin/activate \
    ENV=/opt/app-root/bin/activate \
    PROMPT_COMMAND=". /opt/app-root/bin/activate"
WORKDIR /opt/app-root/src
USER 1001
ENTRYPOINT ["container-entrypoint"]
CMD ["bash"]
