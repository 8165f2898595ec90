"""The functions as an image: its file beside the template and the zip's script. No container engine builds it here."""

import importlib
import re
from pathlib import Path

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
