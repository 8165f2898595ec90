"""An emulator of AWS, and stages that `deploy/stage` puts into it."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from packages import ROOT

from tillway.crash import ministack

SCRIPT = ROOT / "deploy" / "stage"
SECONDS_MAX = 600


AT = "TILLWAY_E2E_AWS"
"""Names the endpoint of an AWS account to use in place of an emulator of our own; credentials are the environment's."""


class Account:
    """An account in an emulator that enforces permissions, or the one that the environment names."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tillway-account-"))
        named = os.environ.get(AT)
        self._stack = None if named else ministack.start(authorizes=True)
        self.endpoint = named or (self._stack.endpoint if self._stack else "")
        self.variables = {**os.environ, "AWS_ENDPOINT_URL": self.endpoint}
        if self._stack:
            ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
            self.variables = ours | {
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_REGION": ministack.REGION,
                "AWS_ACCESS_KEY_ID": ministack.ACCOUNT,
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }
        self.region = self.variables.get("AWS_REGION") or self.variables.get("AWS_DEFAULT_REGION") or ministack.REGION
        self.client: Callable[[str], Any] = functools.cache(self._client)

    def _client(self, service: str) -> Any:
        session = boto3.Session(
            aws_access_key_id=self.variables.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=self.variables.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=self.variables.get("AWS_SESSION_TOKEN"),
            region_name=self.region,
        )
        return session.client(service, endpoint_url=self.endpoint)

    def stage(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, SCRIPT, *arguments)
        return subprocess.run(command, capture_output=True, text=True, env=self.variables, timeout=SECONDS_MAX)

    def deploy(self, tool: str, stage: str, package: Path, *settings: str) -> dict[str, str]:
        """The last line of `deploy/stage deploy`."""
        options = [word for setting in settings for word in ("--set", setting)]
        done = self.stage("deploy", tool, stage, "--package", package, *options)
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def destroy(self, tool: str, stage: str) -> str:
        done = self.stage("destroy", tool, stage)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def close(self) -> None:
        if self._stack:
            self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def missing(tool: str, account: Account) -> str:
    """The reason why a tool cannot be had here, empty if it can."""
    match tool:
        case "terraform":
            if shutil.which("terraform") is None:
                return "there is no terraform on the PATH"
            folder = account.folder / "terraform"
            module = ROOT / "deploy" / "aws" / "terraform"
            command = ("terraform", f"-chdir={module}", "init", "-backend=false", "-input=false", "-no-color")
            environment = account.variables | {"TF_DATA_DIR": str(folder)}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS_MAX)
            error = " ".join(done.stderr.partition("Error:")[2].replace("\u2502", " ").split())
            return f"terraform has no provider for AWS, from its registry or a mirror: {error[:200]}" * bool(
                done.returncode
            )
        case "cdk":
            return "" if shutil.which("npx") else "there is no npx on the PATH"
        case _:
            return ""
