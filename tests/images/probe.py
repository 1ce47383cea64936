"""What a container finds about itself: runs in the images, on nothing but Python and plsc."""

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

LEFT = ("/etc/pip.conf", "/lists", "/prune.py", "/run/secrets")
FOLDERS = ("/", "/opt/plsc", "/usr/local", "/var/tmp", "/tmp", "/dev/shm")


def can_write(folder: str) -> bool:
    try:
        Path(folder, "probe").write_text("x")
    except OSError:
        return False
    return True


def closure(name: str, extras: set[str], seen: set[tuple[str, str]]) -> set[str]:
    """A distribution and all that it requires, as far as it is installed."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    wanted = {(key, extra) for extra in {"", *extras}} - seen
    seen |= wanted
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()  # for another system
    found = {key}
    for line in lines:
        (asked,) = re.findall(r"extra *== *['\"]([\w.-]+)", line) or [""]
        if (key, asked) in wanted:
            required, _, its = re.match(r"([\w.-]+)(\[([^]]*)\])?", line).groups()
            found |= closure(required, set(re.findall(r"[\w.-]+", its or "")), seen)
    return found


def installed_bytes(name: str) -> int:
    total = 0
    for each in closure(name, set(), set()):
        files = importlib.metadata.files(each) or []
        paths = {Path(file.locate()) for file in files}
        total += sum(path.lstat().st_size for path in paths if path.is_file())
    return total


def main() -> None:
    import kfp

    import plsc

    manifests = Path(os.environ["PLSC_MANIFESTS"])
    status = Path("/proc/self/status").read_text()
    facts = {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "python": list(sys.version_info[:2]),
        "plsc": plsc.__version__,
        "installed": importlib.metadata.version("plsc"),
        "kfp": kfp.__version__,
        "has_kubernetes": importlib.util.find_spec("kubernetes") is not None,
        "has_torch": importlib.util.find_spec("torch") is not None,
        "torch_mb": installed_bytes("torch") / 1e6,
        "writable": [folder for folder in FOLDERS if can_write(folder)],
        "home": str(Path.home()),
        "manifests": sorted(str(p.relative_to(manifests)) for p in manifests.rglob("*.yaml")),
        "effective_capabilities": re.search(r"CapEff:\s*(\w+)", status)[1],
        "settings_left": [path for path in LEFT if Path(path).exists()],
    }
    print(json.dumps(facts))


main()
