"""The functions as an image: its file beside the template and the zip's script.

No container engine builds it here: a test runs the script on the files that the image's file copies, and on no others.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from function_package import build
from packages import UV

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "aws" / "Dockerfile").read_text()
TEMPLATE = (ROOT / "deploy" / "aws" / "template.yaml").read_text()


def test_image_and_zip_name_the_same_handlers() -> None:
    handlers = re.findall(r"^ +Handler: !If \[FromImage, !Ref AWS::NoValue, ([\w.]+)\]$", TEMPLATE, re.M)
    commands = re.findall(
        r"^ +ImageConfig: !If \[FromImage, \{Command: \[([\w.]+)\]\}, !Ref AWS::NoValue\]$", TEMPLATE, re.M
    )
    assert handlers == commands and len(handlers) == TEMPLATE.count("Type: AWS::Lambda::Function")
    for handler in {*handlers, *re.findall(r'^CMD \["([\w.]+)"\]$', DOCKERFILE, re.M)}:
        module, _, function = handler.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_image_is_made_by_the_zips_script_from_files_that_are_there() -> None:
    copied = [name for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.M) for name in line.split()[:-1]]
    assert "deploy/aws/package" in copied and {name for name in copied if not (ROOT / name).exists()} == set()
    assert "RUN python /source/deploy/aws/package --into /package local" in DOCKERFILE
    assert "COPY --from=package /package ${LAMBDA_TASK_ROOT}" in DOCKERFILE


@pytest.mark.soak
def test_the_image_has_the_files_of_the_zip(tmp_path: Path) -> None:
    for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.M):
        *names, place = line.split()
        for name in names:
            source, target = ROOT / name, tmp_path / place.lstrip("/")
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
                continue
            into = target / source.name if place.endswith("/") else target
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, into)
    zipped, files = build("local"), tmp_path / "package"
    subprocess.run(
        (sys.executable, tmp_path / "source" / "deploy" / "aws" / "package", "--into", files, "local"),
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{UV.parent}{os.pathsep}{os.defpath}"},
        timeout=300,
    )
    with zipfile.ZipFile(zipped) as opened:
        expected = {name: opened.read(name) for name in opened.namelist()}
    assert {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()} == expected
