"""Protects the way to a cluster: the example is deployed, and its jobs run the image of deploy/Dockerfile."""

import json
from pathlib import Path

import pytest
import yaml

from clepdg_tasks.admin.prefect_access import api_client
from clepdg_tasks.admin.prefect_deployments import deploy_to
from clepdg_tasks.host.settings import PREFECT_YAML, PROJECT

TEMPLATE = json.loads((PROJECT / "deploy/kubernetes.json").read_text())


def example() -> str:
    """Return prefect.yaml with its commented example in the place of the deployment fold."""
    text = PREFECT_YAML.read_text()
    lines = [line.removeprefix("#") for line in text.splitlines() if line.startswith(("#  - <<", "#    "))]
    return text.partition("  - <<: *common\n    name: fold\n")[0] + "\n".join(lines) + "\n"


def job(variables: dict[str, object]) -> dict[str, object]:
    """Return the job that a worker would send to the cluster."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration as Configuration

    defaults = {n: v["default"] for n, v in TEMPLATE["variables"]["properties"].items() if v.get("default") is not None}
    filled = apply_values(TEMPLATE["job_configuration"], defaults | variables)
    configuration = Configuration(**filled)
    configuration.prepare_for_flow_run(FlowRun.model_construct(id="0" * 32, name="a run", flow_id="1" * 32))
    return configuration.job_manifest


def test_a_fold_becomes_a_job_of_a_cluster(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of that kind needs no cluster to be deployed to."""
    from prefect.settings import PREFECT_API_URL

    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.yaml").write_text(example())
    url = str(PREFECT_API_URL.value())
    pool = {"name": "clep-dg-kubernetes", "type": "kubernetes", "base_job_template": TEMPLATE}
    with api_client(url, None) as api:
        api.post("/work_pools/", json=pool).raise_for_status()
        assert deploy_to(url, None, ours=False, force=True)
        deployed = api.get("/deployments/name/clep-dg/fold").json()
    assert deployed["work_pool_name"] == "clep-dg-kubernetes" and deployed["concurrency_limit"] is None
    (step,) = deployed["pull_steps"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": "/data"}}
    manifest = job(deployed["job_variables"])
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    compose = yaml.safe_load((PROJECT / "deploy/compose.yaml").read_text())
    assert container["image"] == compose["x-clep-dg"]["image"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "CLEPDG_STORE", "value": "s3://speech/clep-dg"} in container["env"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert pod["serviceAccountName"] == "clep-dg" and pod["securityContext"]["runAsNonRoot"]
    assert manifest["metadata"]["namespace"] == "speech"
