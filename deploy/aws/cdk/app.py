"""The stage as a CDK app: it includes ../template.yaml, so nothing is written twice. `deploy/stage` runs it.

Context: `parameters`, the parameters of the template as JSON. The stage's own bucket takes the template, so that the
account needs no bootstrap stack.
"""

import json
from pathlib import Path

import aws_cdk as cdk
from aws_cdk.cloudformation_include import CfnInclude

app = cdk.App()
parameters = json.loads(app.node.get_context("parameters"))
stage = parameters["Stage"]
synthesizer = cdk.CliCredentialsStackSynthesizer(file_assets_bucket_name=parameters["CodeBucket"])
stack = cdk.Stack(app, "Tillway", stack_name=f"tillway-{stage}", synthesizer=synthesizer)
cdk.Tags.of(stack).add("application", "tillway")
cdk.Tags.of(stack).add("stage", stage)
template = Path(__file__).parents[1] / "template.yaml"
CfnInclude(stack, "Template", template_file=str(template), parameters=parameters)
app.synth()
