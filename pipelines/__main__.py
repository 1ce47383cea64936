"""The command line: ``python -m pipelines {run,compile,follow,terminate,retry}``."""

import argparse
import logging
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipelines import runner
from pipelines.cluster.errors import UncertainError
from pipelines.cluster.page import page
from pipelines.request import Request
from plsc import conf
from plsc.errors import ClusterError, ConfigError

_STATE_PATH = Path(".plsc")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the pipeline here, or on the cluster at KFP_HOST")
    run.add_argument("--experiment", default="glyphs", help="a named configuration")
    run.add_argument("--overrides", default="", help='what differs: "seed=1 train.epochs=2"')
    run.add_argument("--data-uri", default="", help="input folder (default: the experiment's)")
    run.add_argument("--resume", default="", metavar="RUN_ID", help="run to go on training from")
    build = commands.add_parser("compile", help="write pipelines/plsc.yaml for the KFP UI")
    build.add_argument("--output", type=Path, default=None, help="write this file instead")
    for command in (run, build):
        command.add_argument("--registry", default="", help="what to put in front of image names")
        command.add_argument("--tag", default="", help="tag of all images (default: the version)")
        command.add_argument(
            "--no-cache",
            action="store_true",
            help="preprocess anew, even if KFP's cache has the result of an earlier run",
        )
    told = {
        "follow": "show a run on the cluster until it ends",
        "terminate": "end a run on the cluster",
        "retry": "go on with a run that has failed or was terminated, and follow it",
    }
    there = [commands.add_parser(name, help=text) for name, text in told.items()]
    for command in there:
        command.add_argument("run_id", help="the id that KFP gave to it")
    for command in (run, *there):
        command.add_argument("--state-dir", type=Path, default=_STATE_PATH, help="local state")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parse(arguments)
    if options.command == "compile":
        return _compile(options)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    console = Console(highlight=False)
    try:
        if options.command == "run":
            return _run(options, console)
        return _handle(options, console)
    except (ConfigError, ClusterError, runner.RunnerBusyError) as error:
        is_certain = options.command == "run" and not isinstance(error, UncertainError)
        told = "nothing was started: " if is_certain else ""
        console.print(Text.assemble((told, "bold red"), str(error)), soft_wrap=True)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:  # before a run is followed
        host = os.environ.get("KFP_HOST", "")
        told = f"; for what was started see {page(host, 'runs')}" if host else ""
        console.print(Text(f"stopped{told}"), soft_wrap=True)
        return 130


def _compile(options: argparse.Namespace) -> int:
    from pipelines.compilation import COMPILED

    path = options.output or COMPILED
    path.write_text(_compiled(options))
    print(f"wrote {path}")
    return 0


def _run(options: argparse.Namespace, console: Console) -> int:
    request = Request(
        experiment=options.experiment,
        overrides=options.overrides,
        data_uri=options.data_uri,
        resume_run=options.resume,
        state_path=options.state_dir,
    )
    if not os.environ.get("KFP_HOST"):
        return runner.run(request, console)
    request.compose("the-cluster-names-it")
    from pipelines.cluster import connection, runs, settings

    found = settings.Settings.read()
    compiled = _compiled(options)
    with connection.connect(found) as there:
        return runs.submit(there, compiled, request, console)


def _compiled(options: argparse.Namespace) -> str:
    from pipelines.compilation import compile_pipeline

    return compile_pipeline(
        conf.experiments(),
        registry=options.registry,
        tag=options.tag,
        is_cached=not options.no_cache,
    )


def _handle(options: argparse.Namespace, console: Console) -> int:
    """Do something with a run on the cluster."""
    from pipelines.cluster import connection, runs, settings

    with connection.connect(settings.Settings.read()) as there:
        if options.command == "terminate":
            runs.terminate(there, options.run_id)
            console.print(f"run {options.run_id} is being terminated")
            return 0
        if options.command == "retry":
            runs.retry(there, options.run_id)
        return runs.follow(there, options.run_id, options.state_dir, console)


if __name__ == "__main__":
    sys.exit(main())
