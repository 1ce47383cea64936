"""A process that runs a job to its end, as a step does; for tests that send it signals."""

import logging
import sys

from plsc.cluster.api import Api
from plsc.cluster.job_request import JobRequest
from plsc.cluster.jobs import run_to_end
from plsc.cluster.kinds import JOB
from plsc.cluster.place import Place
from plsc.conf.schema import PodsConfig

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    template = {"spec": {"containers": [{"name": "worker", "image": "a:1"}]}}
    spec = {"completions": 1, "parallelism": 1, "template": template}
    request = JobRequest(
        kind=JOB,
        manifest={"spec": spec},
        step="preprocess",
        part="map",
        run_id="run-1",
        pods=PodsConfig(image="a:1"),
        container="worker",
        speaker={"job-name": sys.argv[1]} if len(sys.argv) > 1 else {},
        report_uri="/dev/null",
    )
    api = Api.connect()
    run_to_end(api, Place.here(api), request, on_line=print)
