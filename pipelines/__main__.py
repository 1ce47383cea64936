"""The command line: ``python -m pipelines run`` and ``python -m pipelines compile``."""

import argparse
import logging
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipelines import runner
from pipelines.request import Request
from plsc import conf
from plsc.errors import ConfigError


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the pipeline here, or on the cluster at KFP_HOST")
    run.add_argument("--experiment", default="glyphs", help="a named configuration")
    run.add_argument("--overrides", default="", help='what differs: "seed=1 train.epochs=2"')
    run.add_argument("--data-uri", default="", help="input folder (default: the experiment's)")
    run.add_argument("--resume", default="", metavar="RUN_ID", help="run to go on training from")
    run.add_argument("--state-dir", type=Path, default=Path(".plsc"), help="for all local state")
    build = commands.add_parser("compile", help="write pipelines/plsc.yaml for the KFP UI")
    build.add_argument("--registry", default="", help="what to put in front of image names")
    build.add_argument("--output", type=Path, default=None, help="write this file instead")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parse(arguments)
    if options.command == "compile":
        return _compile(options)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    return _run(options, Console(highlight=False))


def _compile(options: argparse.Namespace) -> int:
    from pipelines.compilation import COMPILED, compile_pipeline

    path = options.output or COMPILED
    path.write_text(compile_pipeline(conf.experiments(), registry=options.registry))
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
    try:
        if os.environ.get("KFP_HOST"):
            return _submit(request, console)
        return runner.run(request, console)
    except (ConfigError, runner.RunnerBusyError) as error:
        message = Text.assemble(("nothing was started: ", "bold red"), str(error))
        console.print(message, soft_wrap=True)
        return error.exit_code if isinstance(error, ConfigError) else 1


def _submit(request: Request, console: Console) -> int:
    from pipelines import cluster
    from pipelines.compilation import COMPILED

    request.compose("the-cluster-names-it")
    return cluster.submit(cluster.connect(), COMPILED, request.parameters(), console)


if __name__ == "__main__":
    sys.exit(main())
