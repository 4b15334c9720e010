"""A Containerfile for a gate: built in one image, run in another without shell or package manager, and not as root."""

from pathlib import PurePosixPath

from palladion import __version__
from palladion.errors import PolicyError
from palladion.gate.deploy.plan import Plan, absolute, plain

NAME = "Containerfile"
IGNORE_NAME = ".containerignore"
HOME = "/srv/palladion"
USER = 65532  # "nonroot" of the image; a number, so that a cluster can check that it is not root
# Debian 12 twice, so that both have the same Python. The second has no shell.
BUILD_IMAGE = "docker.io/library/debian:12-slim"
RUN_IMAGE = "gcr.io/distroless/python3-debian12:nonroot"

_TEXT = """\
# Palladion gate. Build: buildah build -t palladion-gate .
# Run with the installation and the host identity as volumes that user {user} can read, and everything else read-only:
#   podman run --read-only --cap-drop all --security-opt no-new-privileges \\
#     -v ./installation:{home} -v ./identity:{identity}:ro{publish} palladion-gate
# For builds that can be repeated, name both images by digest (--build-arg RUN_IMAGE=...@sha256:...).
ARG BUILD_IMAGE={build}
ARG RUN_IMAGE={run}

FROM ${{BUILD_IMAGE}} AS build
# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install -y --no-install-recommends python3 python3-venv \\
 && rm -rf /var/lib/apt/lists/*
# wheels put into wheels/ (pip wheel -w wheels {package}) are taken from there, and then nothing is downloaded
COPY Containerfile wheels*/ /wheels/
# hadolint ignore=DL3013
RUN python3 -m venv /tools \\
 && if ls /wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; fi \\
 && /tools/bin/pip install --no-cache-dir --no-compile --target /app "$@" "{package}=={version}" \\
 && rm -rf /app/bin

FROM ${{RUN_IMAGE}}
COPY --from=build /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME={home}
USER {user}:{user}
WORKDIR {home}
STOPSIGNAL SIGTERM
{expose}ENTRYPOINT ["/usr/bin/python3", "-m", "palladion", "--home", "{home}"]
CMD ["serve"]
"""

IGNORE = """\
# nothing but wheels goes into the image: least of all an installation with its keys
*
!Containerfile
!wheels
"""


def containerfile(plan: Plan) -> str:
    """The text of the Containerfile. Raises PolicyError where nobody could reach the gate, or it could not begin."""
    check_reachable(plan, "from outside the container")
    ports = [address.port for address in (plan.listen, plan.grpc) if address is not None]
    return _TEXT.format(
        build=BUILD_IMAGE,
        run=RUN_IMAGE,
        version=__version__,
        home=HOME,
        user=USER,
        identity=identity_folder(plan),
        package=f"palladion[{','.join(plan.extras)}]" if plan.extras else "palladion",
        publish="".join(f" -p {port}:{port}" for port in ports),
        expose="".join(f"EXPOSE {port}\n" for port in ports),
    )


def check_reachable(plan: Plan, whence: str) -> None:
    """Raise PolicyError for an address that nobody reaches `whence`, and for operators whom nobody could tell apart."""
    gate = plan.policy.gate
    for name, address, text in (("listen", plan.listen, gate.listen), ("grpc_listen", plan.grpc, gate.grpc_listen)):
        if address is not None and address.loopback:
            raise PolicyError(
                f"gate.{name} is {text}, which nobody reaches {whence}",
                f'{name} = "0.0.0.0:{address.port}" with gate.tls_certificate and gate.tls_key, or gate.behind_proxy',
            )
    if plan.policy.operators.socket:
        raise PolicyError(
            "operators.socket is set, and in a container everybody is one user: nobody could tell operators apart",
            "leave it out, and let them sign in: operators.issuer, with operations.listen",
        )


def identity_folder(plan: Plan) -> PurePosixPath:
    """Where the gate looks for the folder of its host identity, in the container. Raises PolicyError."""
    home = PurePosixPath(HOME)
    name = plain(plan.policy.keys.host_identity, "keys.host_identity")
    folder = absolute(home, name, home).parent
    if folder in (home, *home.parents):
        raise PolicyError(
            f"keys.host_identity is {name}, and its folder cannot be a volume of its own",
            'put it into a folder that holds nothing else, for example "~/.config/palladion/host.identity"',
        )
    return folder
