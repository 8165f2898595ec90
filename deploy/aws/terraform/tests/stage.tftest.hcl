# The module without AWS: `terraform init -backend=false && terraform test`. tests/deploy/test_tools.py runs it.

mock_provider "aws" {
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
  }
  mock_resource "aws_dynamodb_table" {
    defaults = {
      arn        = "arn:aws:dynamodb:eu-central-1:123456789012:table/tillway-dev"
      stream_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/tillway-dev/stream/2026-01-01T00:00:00.000"
    }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-central-1:123456789012:queue", url = "https://sqs.example/queue" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/mock" }
  }
  mock_resource "aws_lambda_function" {
    defaults = {
      arn        = "arn:aws:lambda:eu-central-1:123456789012:function:mock"
      invoke_arn = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/mock/invocations"
    }
  }
  mock_resource "aws_cloudwatch_event_rule" {
    defaults = { arn = "arn:aws:events:eu-central-1:123456789012:rule/mock" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:mock" }
  }
  mock_resource "aws_apigatewayv2_api" {
    defaults = {
      api_endpoint  = "https://abc.execute-api.eu-central-1.amazonaws.com"
      execution_arn = "arn:aws:execute-api:eu-central-1:123456789012:abc"
    }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::tillway-dev-audit-123456789012" }
  }
  mock_resource "aws_cognito_user_pool" {
    defaults = { id = "eu-central-1_abcdefghi" }
  }
}

variables {
  stage       = "dev"
  region      = "eu-central-1"
  account     = "123456789012"
  code_bucket = "tillway-dev-code"
  code_key    = "package-1.zip"
}

run "a_stage_by_default" {
  assert {
    condition     = jsonencode(keys(aws_lambda_function.function)) == jsonencode(["admin", "api", "step", "worker"])
    error_message = "There are four functions."
  }
  assert {
    condition     = alltrue([for each in aws_lambda_function.function : startswith(each.function_name, "tillway-dev-")])
    error_message = "A function is not named after its stage."
  }
  assert {
    condition = alltrue([
      for each in aws_lambda_function.function : each.environment[0].variables.TILLWAY_PRIVATE_ADDRESSES == "refuse"
    ])
    error_message = "Private addresses are refused."
  }
  assert {
    condition     = length(distinct([for each in aws_lambda_function.function : jsonencode(each.environment)])) == 1
    error_message = "The functions have one environment."
  }
  assert {
    condition     = aws_dynamodb_table.table.deletion_protection_enabled && aws_dynamodb_table.table.point_in_time_recovery[0].enabled
    error_message = "The table is protected, and can be put back."
  }
  assert {
    condition     = aws_dynamodb_table.table.server_side_encryption[0].kms_key_arn == aws_kms_key.key.arn
    error_message = "The table is encrypted under the stage's key."
  }
  assert {
    condition = alltrue([
      for each in jsondecode(aws_iam_policy.data.policy).Statement : !anytrue([for name in concat(each.Action, [each.Resource]) : endswith(name, "*")])
    ])
    error_message = "A permission for data names all actions, or all resources."
  }
  assert {
    condition     = !strcontains(aws_iam_policy.data.policy, "dynamodb:Scan")
    error_message = "No function scans the table."
  }
  assert {
    condition     = length(aws_s3_bucket.audit) == 0 && output.user_pool == null
    error_message = "The bucket and the user pool are made on request."
  }
  assert {
    condition     = output.url == "https://abc.execute-api.eu-central-1.amazonaws.com"
    error_message = "The URL is the one of API Gateway."
  }
}

run "a_stage_with_everything" {
  variables {
    public_url          = "https://pay.example"
    audit_trail         = "bucket"
    tokens_for          = "operators"
    tracing             = "xray"
    deletion_protection = false
    alarm_topic         = "arn:aws:sns:eu-central-1:123456789012:alarms"
  }
  assert {
    condition     = output.url == "https://pay.example" && output.user_pool != null
    error_message = "The URL is the one that was given, and a user pool issues the tokens."
  }
  assert {
    condition = alltrue([
      for each in aws_lambda_function.function :
      each.environment[0].variables.TILLWAY_AUDIT_BUCKET == "tillway-dev-audit-123456789012"
      && each.environment[0].variables.TILLWAY_PUBLIC_URL == "https://pay.example"
      && each.tracing_config[0].mode == "Active"
    ])
    error_message = "The functions know the bucket and the URL, and are traced."
  }
  assert {
    condition     = aws_s3_bucket.audit[0].object_lock_enabled && !aws_dynamodb_table.table.deletion_protection_enabled
    error_message = "The bucket keeps its objects, and the table may be deleted."
  }
  assert {
    condition = [
      for name, each in aws_iam_role_policy.own : name if strcontains(each.policy, "s3:PutObject")
    ] == ["worker"]
    error_message = "The worker alone writes to the bucket."
  }
  assert {
    condition     = alltrue([for each in aws_cloudwatch_metric_alarm.alarm : contains(each.alarm_actions, var.alarm_topic)])
    error_message = "The topic hears of every alarm."
  }
}

run "tokens_of_an_issuer_outside" {
  variables {
    tokens_for     = "everything"
    token_issuer   = "https://issuer.example"
    token_audience = "tillway"
  }
  assert {
    condition     = output.user_pool == null && length(aws_apigatewayv2_authorizer.token) == 1
    error_message = "Another issuer needs no user pool."
  }
}

run "functions_from_an_image" {
  variables {
    image_uri = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/tillway:1"
  }
  assert {
    condition = alltrue([
      for name, each in aws_lambda_function.function :
      each.package_type == "Image" && each.handler == null && each.image_config[0].command == tolist(["tillway.aws.${name}.handler"])
    ])
    error_message = "Each function names its handler as the image's command."
  }
}

run "a_stage_has_a_short_name_in_lower_case" {
  command = plan
  variables {
    stage = "Dev_1"
  }
  expect_failures = [var.stage]
}
