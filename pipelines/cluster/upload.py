"""Puts the compiled pipeline on the cluster, and starts a run of it."""

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kfp_server_api

from components.images import VERSION
from pipelines.cluster.connection import Connection
from pipelines.cluster.errors import UnavailableError, UncertainError
from pipelines.cluster.page import page
from plsc.errors import ClusterError

__all__ = ["start_run", "upload"]

_PIPELINE = "plsc"
_LOOKS = 5
_LOOK_PAUSE_S = 3.0
"""How often, and how long apart, a run is looked for whose start was not answered."""
_EQUALS = 1  # V2beta1PredicateOperation.EQUALS, as the API's filters write it


def upload(connection: Connection, compiled: str) -> tuple[str, str]:
    """See that KFP has ``compiled`` as a version of the pipeline; return the ids of both.

    The version's name holds a digest of its content: the same pipeline is uploaded once.

    Args:
        connection: To KFP.
        compiled: The compiled pipeline, YAML.

    Raises:
        ClusterError: If KFP refuses, or does not answer for a minute.
    """
    pipeline_id = _pipeline(connection)
    name = f"{VERSION}-{hashlib.sha256(compiled.encode()).hexdigest()[:8]}"

    def find() -> str | None:
        found = connection.insist(
            "its versions", connection.pipelines.pipeline_service_list_pipeline_versions,
            pipeline_id, filter=_named(name),
        ).pipeline_versions  # fmt: skip
        return str(found[0].pipeline_version_id) if found else None

    def make() -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plsc.yaml"
            path.write_text(compiled)
            made = connection.insist(
                "the pipeline's version", connection.uploads.upload_pipeline_version,
                str(path), name=name, display_name=name, pipelineid=pipeline_id,
            )  # fmt: skip
        return str(made.pipeline_version_id)

    return pipeline_id, _found_or_made(find, make)


def start_run(
    connection: Connection, version: tuple[str, str], arguments: dict[str, str], *, name: str
) -> str:
    """Start a run and return its id.

    Args:
        connection: To KFP.
        version: The ids of the pipeline and its version.
        arguments: The pipeline's parameters.
        name: No other run's: by it the run is found when KFP's answer is lost.

    Raises:
        UncertainError: If KFP's answer is lost, and no such run is found or started anew.
        ClusterError: If KFP refuses, or does not answer for a minute; nothing was started then.
    """
    experiment_id = _experiment(connection)
    run = kfp_server_api.V2beta1Run(
        display_name=name,
        experiment_id=experiment_id,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version[0], pipeline_version_id=version[1]
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=arguments),
        service_account=connection.settings.service_account or None,
    )
    create = connection.runs.run_service_create_run
    with contextlib.suppress(UnavailableError):
        return str(connection.ask("the run", create, run).run_id)
    try:
        found = _search(connection, experiment_id, name)
        return found or str(connection.ask("the run", create, run).run_id)
    except ClusterError as error:
        raise UncertainError(
            f"the run {name} may have been started, or not: {error}; look for it at"
            f" {page(connection.settings.host, 'runs')}"
        ) from error


def _search(connection: Connection, experiment_id: str, name: str) -> str | None:
    """Return the run ``name``; None if there is none after a while.

    A gateway that gives up waiting says so before KFP has done what it was asked.
    """
    for _ in range(_LOOKS):
        time.sleep(_LOOK_PAUSE_S)
        found = connection.insist(
            "its runs", connection.runs.run_service_list_runs,
            experiment_id=experiment_id, filter=_named(name),
        ).runs  # fmt: skip
        if found:
            return str(found[0].run_id)
    return None


def _pipeline(connection: Connection) -> str:
    where = _namespace(connection)

    def find() -> str | None:
        found = connection.insist(
            "its pipelines", connection.pipelines.pipeline_service_list_pipelines,
            filter=_named(_PIPELINE), **where,
        ).pipelines  # fmt: skip
        return str(found[0].pipeline_id) if found else None

    def make() -> str:
        wanted = kfp_server_api.V2beta1Pipeline(name=_PIPELINE, display_name=_PIPELINE, **where)
        create = connection.pipelines.pipeline_service_create_pipeline
        return str(connection.insist("the pipeline", create, wanted).pipeline_id)

    return _found_or_made(find, make)


def _experiment(connection: Connection) -> str:
    name, where = connection.settings.experiment, _namespace(connection)

    def find() -> str | None:
        found = connection.insist(
            "its experiments", connection.experiments.experiment_service_list_experiments,
            filter=_named(name), **where,
        ).experiments  # fmt: skip
        return str(found[0].experiment_id) if found else None

    def make() -> str:
        wanted = kfp_server_api.V2beta1Experiment(display_name=name, **where)
        create = connection.experiments.experiment_service_create_experiment
        return str(connection.insist("the experiment", create, wanted).experiment_id)

    return _found_or_made(find, make)


def _found_or_made(find: Callable[[], str | None], make: Callable[[], str]) -> str:
    """Return the id that ``find`` finds, or else that of what ``make`` makes.

    Somebody else may make it in between, or the answer to ours may be lost: it is looked for again.
    """
    found = find()
    if found:
        return found
    try:
        return make()
    except ClusterError:
        found = find()
        if not found:
            raise
        return found


def _namespace(connection: Connection) -> dict[str, str]:
    namespace = connection.settings.namespace
    return {"namespace": namespace} if namespace else {}


def _named(name: str) -> str:
    """Return the filter of KFP's lists for what bears ``name``."""
    predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})
