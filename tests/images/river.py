"""Run a pipeline with kfp's DockerRunner, hardened: ``python river.py MODULE:PIPELINE SETTINGS``.

SETTINGS is JSON: ``root`` (folder for the artifacts, writable by everybody), ``network``,
``environment`` (of every step) and ``arguments`` (of the pipeline).

kfp 2.17 lets docker remove a container when it ends, and takes one that is gone before it asks for
the exit status for a success: some failing steps pass. Here a container stays until its status is
read.
"""

import importlib
import json
import os
import sys

import docker
from kfp import local
from kfp.local import docker_task_handler

from components.images import placed

WORKER = "PLSC_WORKER_IMAGE"
LAUNCHER = "plsc-train-launch"


def image_of(image: str, environment: dict) -> str:
    """The image to run: no cluster is here to start a job on, so train trains in its own container.

    That cannot be the launcher's, which has no torch, and is the one that a job's pods would have.
    """
    image = environment[WORKER] if image.startswith(LAUNCHER) else image
    return placed(image, registry=os.environ.get("REGISTRY", ""), tag=os.environ.get("TAG", ""))


def run_container(shared: dict):
    def run_docker_container(
        client: docker.DockerClient, image: str, command: list, volumes: dict, **options
    ) -> int:
        environment = shared | options.pop("environment", {})
        container = client.containers.create(
            image=image_of(image, environment),
            command=command,
            volumes=volumes,
            environment=environment,
            **options,
        )
        try:
            container.start()
            for line in container.logs(stream=True, follow=True):
                sys.stdout.write(line.decode(errors="replace"))
            return container.wait()["StatusCode"]
        finally:
            container.remove(force=True, v=True)

    return run_docker_container


def main(target: str, settings: dict) -> None:
    docker_task_handler.run_docker_container = run_container(settings["environment"])
    runner = local.DockerRunner(
        user="10001:10001",
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network=settings["network"],
        shm_size="1g",
    )
    local.init(runner=runner, pipeline_root=settings["root"])
    module, _, name = target.partition(":")
    getattr(importlib.import_module(module), name)(**settings["arguments"])


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
