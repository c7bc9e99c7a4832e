"""Protects deploy/: the image, the services beside it and the cluster's jobs name the same versions and settings."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from clepdg_tasks.host.settings import PROJECT
from clepdg_tasks.host.settings_file import NAMES

FOLDER = PROJECT / "deploy"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KNOWN = tomllib.loads((PROJECT / "pyproject.toml").read_text())
IMAGE = f"clep-dg:{KNOWN['project']['version']}"


def test_all_name_one_image() -> None:
    jobs = json.loads((FOLDER / "kubernetes.json").read_text())["variables"]["properties"]
    assert jobs["image"]["default"] == COMPOSE["x-clep-dg"]["image"] == IMAGE
    assert set(re.findall(r"clep-dg:\d[\w.]*", DOCKERFILE)) == {IMAGE}


def test_the_image_is_built_with_the_locked_uv_and_without_rights() -> None:
    (pinned,) = re.findall(r"^UV := (.+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"uv==([\d.]+)", DOCKERFILE) == [pinned]
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0


def test_every_extra_is_documented_and_locked_but_the_one_for_research_alone() -> None:
    extras = {*KNOWN["project"]["optional-dependencies"]}
    locked = set(re.findall(r"--extra (\w+)", (PROJECT / "Makefile").read_text()))
    assert locked == extras - {"egemaps"}
    page = (PROJECT / "docs/install.md").read_text()
    assert all(f"`{extra}`" in page for extra in extras - {"dev", "docs"})
    (installed,) = re.findall(r"\$\{wheel\}\[([\w,]+)\]", DOCKERFILE)
    assert {*installed.split(",")} <= locked


def test_what_the_build_reads_is_sent_to_it() -> None:
    sent = re.findall(r"^!(.+)$", (FOLDER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert all(list(PROJECT.glob(name)) for name in sent)
    built = KNOWN["tool"]["setuptools"]["package-dir"].values()
    needed = {*built, "clepdg", "pyproject.toml", "prefect.yaml", "README.md", *KNOWN["project"]["license-files"]}
    assert needed | {"requirements*.lock"} == {*sent}


def test_pytorch_and_cuda_are_a_layer_of_their_own() -> None:
    """The second layer must not bring CUDA into an image for a CPU."""
    (apart,) = set(re.findall(r"/\^\(([^)]+)\)/", DOCKERFILE))
    names = re.findall(r"^([a-z0-9][\w-]*)==", (PROJECT / "requirements.lock").read_text(), re.MULTILINE)
    others = [name for name in names if not re.match(apart, name)]
    assert len(names) - len(others) >= 3
    assert not [name for name in others if re.search("nvidia|cuda|cu1[0-9]$|^triton", name)]


def test_services_are_pinned_and_closed() -> None:
    assert {*SERVICES} == {"postgres", "s3", "prefect", "mlflow", "deploy", "worker"}
    for name, service in SERVICES.items():
        assert re.search(r":\d[\d.]*$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert {*service.get("depends_on", {})} <= {*SERVICES}
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= {*COMPOSE["volumes"]}, name


@pytest.mark.parametrize("service", SERVICES)
def test_each_password_is_the_users(service: str) -> None:
    secrets = [
        v
        for n, v in SERVICES[service]["environment"].items()
        if re.search("PASSWORD|SECRET|AUTH|CONNECTION|STORE_URI", n)
    ]
    assert secrets and all("${PASSWORD" in value for value in secrets)


def test_the_worker_knows_its_settings() -> None:
    environment = SERVICES["worker"]["environment"]
    names = [name.removeprefix("CLEPDG_").lower() for name in environment if name.startswith("CLEPDG_")]
    assert names and set(names) <= {*NAMES}
    bucket = re.search("-bucket=(.+?) ", SERVICES["s3"]["command"])
    assert bucket and environment["CLEPDG_STORE"].startswith(f"s3://{bucket[1]}/")
