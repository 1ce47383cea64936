"""Build and push the images: ``python3 -m images.build [build|push] [NAME ...]``, from the root.

Settings come as environment variables, which ``make images`` hands over: REGISTRY and TAG of the
names, BASE_IMAGE, PIP_CONF and CA_BUNDLE (files for the build secrets; by default what the host's
own pip is told). Only the standard library is needed.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from components.images import NAMES, VERSION, placed, ref
from images import engine, index

_ROOT = Path(__file__).resolve().parents[1]
_BASE_IMAGE = "python:3.11-slim-bookworm"
"""What the Dockerfiles name; made of Debian's packages where it cannot be pulled."""

_LAUNCHER = "train-launch"
_PULL_TIMEOUT_S = 600
_SHOWN_LINES = 30
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def build(names: list[str]) -> None:
    """Build the named images, and print a table of what came of it."""
    base_image = os.environ.get("BASE_IMAGE") or _BASE_IMAGE
    engine.say(f"Building with {engine.ready()}")
    _provide(base_image)
    rows = []
    with secrets() as arguments:
        for name in names:
            start = time.monotonic()
            _build_one(name, ["--build-arg", f"BASE_IMAGE={base_image}", *arguments])
            seconds = time.monotonic() - start
            rows.append((tag_of(name), _size_mb(tag_of(name)), seconds))
            engine.say(f"  {rows[-1][0]}")
    width = max(len(row[0]) for row in rows)
    engine.say(f"\n{'image':{width}}  {'size':>8}  {'time':>7}")
    for tag, size_mb, seconds in rows:
        engine.say(f"{tag:{width}}  {size_mb:5.0f} MB  {seconds:5.1f} s")


def push(names: list[str]) -> None:
    """Push the named images to the registry they were built for.

    Raises:
        EngineError: If REGISTRY is not set, or a push fails.
    """
    if not os.environ.get("REGISTRY"):
        raise engine.EngineError(
            "expected REGISTRY to name where the images go, found nothing:"
            " make images images-push REGISTRY=host/path"
        )
    engine.ready()
    for name in names:
        if engine.docker("image", "inspect", tag_of(name), check=False).returncode:
            raise engine.EngineError(
                f"no {tag_of(name)}: build it first (make images REGISTRY=...)"
            )
        engine.docker("push", "--quiet", tag_of(name))
        engine.say(f"pushed {tag_of(name)}")


def tag_of(name: str) -> str:
    """Return the whole name of an image, such as ``host/path/plsc-train:0.1.0``."""
    return placed(ref(name), registry=os.environ.get("REGISTRY", ""), tag=os.environ.get("TAG", ""))


def _build_one(name: str, arguments: list[str]) -> None:
    folder, target = ("train", ["--target", "launcher"]) if name == _LAUNCHER else (name, [])
    labels = {
        "VERSION": os.environ.get("TAG") or VERSION,
        "REVISION": _git("rev-parse", "HEAD"),
        "SOURCE": re.sub("//[^/@]*@", "//", _git("config", "--get", "remote.origin.url")),
    }
    for key, value in labels.items():
        arguments = [*arguments, "--build-arg", f"{key}={value}"]
    file = _ROOT / "images" / folder / "Dockerfile"
    done = engine.docker(
        "build", "--quiet", "--network=host", *arguments, *target, f"--tag={tag_of(name)}",
        f"--file={file}", str(_ROOT), check=False,
    )  # fmt: skip
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:])
        raise engine.EngineError(f"the build of {tag_of(name)} failed:\n{last}")


def _provide(base_image: str) -> None:
    """See that the daemon has the base image: there already, pulled, or made here.

    Raises:
        EngineError: If it is not ours to make.
    """
    if engine.docker("image", "inspect", base_image, check=False).returncode == 0:
        return
    engine.say(f"Pulling {base_image} ...")
    pulled = engine.docker("pull", "--quiet", base_image, check=False, timeout_s=_PULL_TIMEOUT_S)
    if pulled.returncode == 0:
        return
    if base_image != _BASE_IMAGE:
        reason = pulled.stderr.strip()
        raise engine.EngineError(f"BASE_IMAGE={base_image} is neither here nor pulled: {reason}")
    engine.say("  cannot be pulled; making it of Debian's packages (a minute or two)")
    if not shutil.which("mmdebstrap"):
        engine.install("mmdebstrap")
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder, "base.tar")
        made = subprocess.run(
            [str(_ROOT / "images" / "base-image.sh"), str(tar)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise engine.EngineError(f"images/base-image.sh failed:\n{made.stderr.strip()}")
        path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        command = 'CMD ["python3"]'
        engine.docker("import", f"--change={path}", f"--change={command}", str(tar), base_image)


@contextlib.contextmanager
def secrets() -> Iterator[list[str]]:
    """The build's arguments for the package index; the files are gone when the block ends.

    Raises:
        EngineError: If a file that PIP_CONF or CA_BUNDLE names is missing.
    """
    for variable in ("PIP_CONF", "CA_BUNDLE"):
        if os.environ.get(variable) and not Path(os.environ[variable]).is_file():
            raise engine.EngineError(
                f"expected {variable} to name a file, found none at {os.environ[variable]}"
            )
    with tempfile.TemporaryDirectory() as folder:
        bundle = os.environ.get("CA_BUNDLE") or index.ca_bundle()
        conf = os.environ.get("PIP_CONF")
        if not conf:
            conf = str(Path(folder, "pip.conf"))  # the folder is this user's alone
            Path(conf).write_text(index.pip_conf(has_bundle=bool(bundle)))
        arguments = ["--secret", f"id=pip-conf,src={conf}"]
        if bundle:
            arguments += ["--secret", f"id=ca-bundle,src={bundle}"]
        for name in _PROXIES:
            if os.environ.get(name):  # the builder knows these names: no layer keeps them
                arguments += ["--build-arg", name]
        yield arguments


def _size_mb(tag: str) -> float:
    size = engine.docker("image", "inspect", "--format={{.Size}}", tag).stdout
    return int(size) / 1e6


def _git(*arguments: str) -> str:
    """Return git's answer, or nothing: a tarball of the source builds as well."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def main() -> None:
    """Do what the command line says."""
    actions = {"build": build, "push": push}
    action, *names = sys.argv[1:] or ["build"]
    unknown = [name for name in names if name not in NAMES]
    if action not in actions or unknown:
        sys.exit(f"usage: python3 -m images.build [build|push] [{'|'.join(NAMES)} ...]")
    try:
        actions[action](names or list(NAMES))
    except engine.EngineError as error:
        sys.exit(f"images: {error}")


if __name__ == "__main__":
    main()
