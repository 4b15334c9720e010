"""A Containerfile for a gate: built in one image, run in another without shell or package manager, and not as root."""

from palladion import __version__

NAME = "Containerfile"
IGNORE_NAME = ".containerignore"
HOME = "/srv/palladion"
USER = 65532  # "nonroot" of the image; a number, so that a cluster can check that it is not root
# Debian 12 twice, so that both have the same Python. The second has no shell.
BUILD_IMAGE = "docker.io/library/debian:12-slim"
RUN_IMAGE = "gcr.io/distroless/python3-debian12:nonroot"

_TEXT = """\
# Palladion gate. Build: buildah build -t palladion-gate .
# Run with the installation as a volume, and everything else read-only:
#   podman run --read-only --cap-drop all --security-opt no-new-privileges \\
#     -v ./installation:{home} -p 8710:8710 palladion-gate
# For builds that can be repeated, name both images by digest (--build-arg RUN_IMAGE=...@sha256:...).
ARG BUILD_IMAGE={build}
ARG RUN_IMAGE={run}

FROM ${{BUILD_IMAGE}} AS build
# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install -y --no-install-recommends python3 python3-venv \\
 && rm -rf /var/lib/apt/lists/*
# wheels put into wheels/ (pip wheel -w wheels palladion) are taken from there, and then nothing is downloaded
COPY Containerfile wheels*/ /wheels/
# hadolint ignore=DL3013
RUN python3 -m venv /tools \\
 && if [ -n "$(ls -A /wheels)" ]; then set -- --no-index --find-links /wheels; fi \\
 && /tools/bin/pip install --no-cache-dir --no-compile --target /app "$@" "palladion=={version}" \\
 && rm -rf /app/bin

FROM ${{RUN_IMAGE}}
COPY --from=build /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME={home}
USER {user}:{user}
WORKDIR {home}
STOPSIGNAL SIGTERM
EXPOSE {port}
ENTRYPOINT ["/usr/bin/python3", "-m", "palladion", "--home", "{home}"]
CMD ["serve"]
"""

IGNORE = """\
# nothing but wheels goes into the image: least of all an installation with its keys
*
!Containerfile
!wheels
"""


def containerfile(port: int) -> str:
    """The text of the Containerfile; the gate listens on `port`."""
    return _TEXT.format(build=BUILD_IMAGE, run=RUN_IMAGE, version=__version__, home=HOME, user=USER, port=port)
