"""``python -m pipelines.services up|down|status|exec``: the local servers by hand."""

import argparse
import logging
import os
import sys
from pathlib import Path

from pipelines.services import ServicesError, ServiceStatus, down, running, status, up
from plsc.progress import duration


def main() -> int:
    """Do what the command line says; return the exit status."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pipelines").setLevel(logging.INFO)
    try:
        if arguments.command == "exec":
            _execute(arguments.state_dir, arguments.words)
        elif arguments.command == "down":
            stopped = down(arguments.state_dir)
            print(f"stopped: {', '.join(stopped)}" if stopped else "nothing of ours was running")
        else:
            if arguments.command == "up":
                up(arguments.state_dir)
            _print_status(arguments.state_dir)
    except ServicesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--state-dir",
        type=Path,
        default=Path(".plsc"),
        help="where they keep everything (%(default)s)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.services", description="The local S3 server and Triton."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", parents=[shared], help="start what does not run")
    commands.add_parser("down", parents=[shared], help="stop what was started")
    commands.add_parser("status", parents=[shared], help="tell what runs, and where")
    execute = commands.add_parser("exec", parents=[shared], help="run a command that finds them")
    execute.add_argument("words", nargs="+", metavar="COMMAND", help="after --")
    return parser


def _execute(state_dir: Path, words: list[str]) -> None:
    """Become the command, in an environment in which plsc and its client find the servers."""
    environment = os.environ | running(state_dir).environment()
    try:
        os.execvpe(words[0], words, environment)  # noqa: S606  what the user asked for
    except OSError as error:
        raise ServicesError(f"{words[0]}: {error.strerror}") from error


def _print_status(state_dir: Path) -> None:
    header = ("service", "state", "address", "pid", "memory", "up", "log")
    rows = [header, *(_row(one) for one in status(state_dir))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _row(one: ServiceStatus) -> tuple[str, ...]:
    log_path = os.path.relpath(one.log_path) if one.log_path else ""
    if not one.pid:
        return (one.name, "stopped", "", "", "", "", log_path)
    memory = f"{one.memory_bytes / 2**20:.0f} MB"
    return (one.name, "runs", one.address, str(one.pid), memory, duration(one.up_s), log_path)


if __name__ == "__main__":
    sys.exit(main())
