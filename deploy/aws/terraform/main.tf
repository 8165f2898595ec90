# The resources of ../template.yaml; tests/deploy/test_tools.py compares the two.

terraform {
  required_version = ">= 1.9"
  # `deploy/stage` names the file, and keeps it in the stage's bucket.
  backend "local" {}
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.90, < 7"
    }
  }
}

provider "aws" {
  region            = var.region
  s3_use_path_style = true
  default_tags {
    tags = {
      application = "tillway"
      stage       = var.stage
    }
  }
}

locals {
  name   = "tillway-${var.stage}"
  place  = "${var.region}:${var.account}"
  arn    = "arn:${var.partition}"
  traced = var.tracing == "xray"
  image  = var.image_uri != ""
  audit  = var.audit_trail == "bucket"
  bucket = "${local.name}-audit-${var.account}"
  token  = var.tokens_for != "none"
  pool   = local.token && var.token_issuer == ""
  logs   = ["logs:CreateLogStream", "logs:PutLogEvents"]
  secret = "${local.arn}:secretsmanager:${local.place}:secret:${local.name}/keys-??????"
  order  = "${local.arn}:states:${local.place}:stateMachine:${local.name}-order"
  table  = "${local.arn}:dynamodb:${local.place}:table/${local.name}"
  soon   = "${local.arn}:sqs:${local.place}:${local.name}-soon"
  failed = "${local.arn}:sqs:${local.place}:${local.name}-failures"

  traces = local.traced ? [{
    Sid      = "Traces"
    Effect   = "Allow"
    Action   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
    Resource = "*"
  }] : []

  # AWS asks for SendMessage also where messages are sent together; an emulator asks for the call's own name.
  emulated = var.private_addresses == "allow" ? [{
    Sid      = "LaterInAnEmulator"
    Effect   = "Allow"
    Action   = ["sqs:SendMessageBatch"]
    Resource = local.soon
  }] : []

  functions = {
    api = {
      what       = "Answers requests of the API"
      seconds    = 29
      statements = []
    }
    worker = {
      what    = "Does due tasks: webhooks, provider questions, debits, mail, the audit trail"
      seconds = 60
      statements = concat([
        {
          Sid      = "Stream"
          Effect   = "Allow"
          Action   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"]
          Resource = aws_dynamodb_table.table.stream_arn
        },
        {
          Sid      = "Messages"
          Effect   = "Allow"
          Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
          Resource = local.soon
        },
        {
          Sid      = "Failures"
          Effect   = "Allow"
          Action   = ["sqs:SendMessage"]
          Resource = local.failed
        },
        {
          Sid      = "Orders"
          Effect   = "Allow"
          Action   = ["states:StartExecution"]
          Resource = local.order
        },
        ], local.audit ? [{
          Sid      = "Audit"
          Effect   = "Allow"
          Action   = ["s3:PutObject"]
          Resource = ["${local.arn}:s3:::${local.bucket}/audit/*", "${local.arn}:s3:::${local.bucket}/ledger/*"]
      }] : [])
    }
    step = {
      what       = "Does one step of an order"
      seconds    = 45
      statements = []
    }
    admin = {
      what    = "Makes keys, migrates the table and examines the installation"
      seconds = 300
      statements = [
        {
          Sid      = "MakeKeys"
          Effect   = "Allow"
          Action   = ["secretsmanager:PutSecretValue", "secretsmanager:DescribeSecret"]
          Resource = local.secret
        },
        {
          Sid      = "TimeToLive"
          Effect   = "Allow"
          Action   = ["dynamodb:DescribeTimeToLive", "dynamodb:UpdateTimeToLive"]
          Resource = local.table
        },
      ]
    }
  }
}

# Keys and secrets.

resource "aws_kms_key" "key" {
  description             = "${local.name}: table, secret, logs and audit bucket"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Account"
        Effect    = "Allow"
        Principal = { AWS = "${local.arn}:iam::${var.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"]
        Resource  = "*"
        Condition = {
          ArnLike = {
            "kms:EncryptionContext:aws:logs:arn" = "${local.arn}:logs:${local.place}:log-group:/aws/*/${local.name}-*"
          }
        }
      },
    ]
  })
}

resource "aws_kms_alias" "key" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.key.key_id
}

resource "aws_secretsmanager_secret" "keys" {
  name                    = "${local.name}/keys"
  description             = "Keys of the card vault; empty until the admin function has made them"
  kms_key_id              = aws_kms_key.key.arn
  recovery_window_in_days = 0
}

# Records.

resource "aws_dynamodb_table" "table" {
  name                        = local.name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  stream_enabled              = true
  stream_view_type            = "NEW_IMAGE"
  deletion_protection_enabled = var.deletion_protection
  dynamic "attribute" {
    for_each = { pk = "S", sk = "S", q = "S", d = "N" }
    content {
      name = attribute.key
      type = attribute.value
    }
  }
  global_secondary_index {
    name            = "due"
    hash_key        = "q"
    range_key       = "d"
    projection_type = "KEYS_ONLY"
  }
  ttl {
    attribute_name = "e"
    enabled        = true
  }
  point_in_time_recovery {
    enabled = true
  }
  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.key.arn
  }
}

# Queues.

resource "aws_sqs_queue" "soon" {
  name                       = "${local.name}-soon"
  visibility_timeout_seconds = 360
  sqs_managed_sse_enabled    = true
  redrive_policy             = jsonencode({ deadLetterTargetArn = aws_sqs_queue.failures.arn, maxReceiveCount = 5 })
}

resource "aws_sqs_queue" "failures" {
  name                      = "${local.name}-failures"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

# Permissions.

resource "aws_iam_policy" "data" {
  name        = "${local.name}-data-${var.region}"
  description = "The table, the keys and the queue of this stage"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid    = "Records"
        Effect = "Allow"
        Action = [
          "dynamodb:BatchGetItem",
          "dynamodb:BatchWriteItem",
          "dynamodb:ConditionCheckItem",
          "dynamodb:DeleteItem",
          "dynamodb:DescribeTable",
          "dynamodb:GetItem",
          "dynamodb:PutItem",
          "dynamodb:Query",
          "dynamodb:UpdateItem",
        ]
        Resource = local.table
      },
      {
        Sid      = "DueTasks"
        Effect   = "Allow"
        Action   = ["dynamodb:Query"]
        Resource = "${local.table}/index/due"
      },
      {
        Sid      = "Keys"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = local.secret
      },
      {
        Sid      = "Decrypt"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = aws_kms_key.key.arn
      },
      {
        Sid      = "Later"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = local.soon
      },
    ], local.emulated, local.traces)
  })
}

resource "aws_iam_role" "function" {
  for_each = local.functions
  name     = "${local.name}-${each.key}-${var.region}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "lambda.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy_attachment" "data" {
  for_each   = local.functions
  role       = aws_iam_role.function[each.key].name
  policy_arn = aws_iam_policy.data.arn
}

resource "aws_iam_role_policy" "own" {
  for_each = local.functions
  name     = "own"
  role     = aws_iam_role.function[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = local.logs
        Resource = "${local.arn}:logs:${local.place}:log-group:/aws/lambda/${local.name}-${each.key}:*"
      }],
      each.value.statements,
    )
  })
}

# Functions.

resource "aws_cloudwatch_log_group" "function" {
  for_each          = local.functions
  name              = "/aws/lambda/${local.name}-${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.key.arn
}

resource "aws_lambda_function" "function" {
  for_each      = local.functions
  function_name = "${local.name}-${each.key}"
  description   = each.value.what
  role          = aws_iam_role.function[each.key].arn
  package_type  = local.image ? "Image" : "Zip"
  image_uri     = local.image ? var.image_uri : null
  s3_bucket     = local.image ? null : var.code_bucket
  s3_key        = local.image ? null : var.code_key
  runtime       = local.image ? null : var.runtime
  handler       = local.image ? null : "tillway.aws.${each.key}.handler"
  architectures = [var.architecture]
  timeout       = each.value.seconds
  memory_size   = var.memory_megabytes
  dynamic "image_config" {
    for_each = local.image ? [1] : []
    content {
      command = ["tillway.aws.${each.key}.handler"]
    }
  }
  dynamic "dead_letter_config" {
    for_each = each.key == "worker" ? [1] : []
    content {
      target_arn = aws_sqs_queue.failures.arn
    }
  }
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function[each.key].name
  }
  tracing_config {
    mode = local.traced ? "Active" : "PassThrough"
  }
  environment {
    variables = merge(
      {
        TILLWAY_STAGE             = var.stage
        TILLWAY_STORE             = "dynamodb://${local.name}?region=${var.region}"
        TILLWAY_KEYS              = "secretsmanager:${local.name}/keys"
        TILLWAY_QUEUE_URL         = aws_sqs_queue.soon.url
        TILLWAY_STATE_MACHINE     = local.order
        TILLWAY_PRIVATE_ADDRESSES = var.private_addresses
        TILLWAY_LOG_FORMAT        = "json"
        TILLWAY_LOG_LEVEL         = var.log_level
      },
      var.public_url == "" ? {} : { TILLWAY_PUBLIC_URL = var.public_url },
      local.audit ? { TILLWAY_AUDIT_BUCKET = local.bucket } : {},
    )
  }
  depends_on = [aws_iam_role_policy.own, aws_iam_role_policy_attachment.data]
}

# Wake-ups of the worker.

resource "aws_lambda_event_source_mapping" "stream" {
  function_name                  = aws_lambda_function.function["worker"].arn
  event_source_arn               = aws_dynamodb_table.table.stream_arn
  starting_position              = "TRIM_HORIZON"
  batch_size                     = 100
  parallelization_factor         = 2
  maximum_retry_attempts         = 3
  maximum_record_age_in_seconds  = 3600
  bisect_batch_on_function_error = true
  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.failures.arn
    }
  }
  filter_criteria {
    filter {
      pattern = jsonencode({
        eventName = ["INSERT"]
        dynamodb = {
          NewImage = { q = { S = [for queue in ["deliveries", "mail", "notices", "orders", "webhooks"] : { prefix = "${queue}#" }] } }
        }
      })
    }
  }
}

resource "aws_lambda_event_source_mapping" "soon" {
  function_name    = aws_lambda_function.function["worker"].arn
  event_source_arn = aws_sqs_queue.soon.arn
  batch_size       = 10
  scaling_config {
    maximum_concurrency = 10
  }
}

resource "aws_cloudwatch_event_rule" "every_minute" {
  name                = "${local.name}-every-minute"
  description         = "The net below stream and queue"
  schedule_expression = "rate(1 minute)"
}

resource "aws_cloudwatch_event_target" "every_minute" {
  rule      = aws_cloudwatch_event_rule.every_minute.name
  target_id = "worker"
  arn       = aws_lambda_function.function["worker"].arn
}

resource "aws_lambda_permission" "every_minute" {
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.function["worker"].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.every_minute.arn
}

# Orders.

resource "aws_iam_role" "order" {
  name = "${local.name}-order-${var.region}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "states.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy" "order" {
  name = "own"
  role = aws_iam_role.order.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid      = "Steps"
        Effect   = "Allow"
        Action   = ["lambda:InvokeFunction"]
        Resource = aws_lambda_function.function["step"].arn
      }],
      local.traces,
    )
  })
}

resource "aws_sfn_state_machine" "order" {
  name       = "${local.name}-order"
  type       = "STANDARD"
  role_arn   = aws_iam_role.order.arn
  definition = replace(file("${path.module}/../workflow.asl.json"), "$${StepFunctionArn}", aws_lambda_function.function["step"].arn)
  tracing_configuration {
    enabled = local.traced
  }
}

# The API.

resource "aws_apigatewayv2_api" "api" {
  name          = local.name
  description   = "All calls go to one function"
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_integration" "api" {
  api_id                 = aws_apigatewayv2_api.api.id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_function.function["api"].arn
  payload_format_version = "2.0"
  timeout_milliseconds   = 30000
}

resource "aws_apigatewayv2_route" "api" {
  for_each           = toset(concat(["$default"], var.tokens_for == "operators" ? ["ANY /ops/{proxy+}"] : []))
  api_id             = aws_apigatewayv2_api.api.id
  route_key          = each.key
  target             = "integrations/${aws_apigatewayv2_integration.api.id}"
  authorization_type = var.tokens_for == "everything" || each.key != "$default" ? "JWT" : "NONE"
  authorizer_id      = var.tokens_for == "everything" || each.key != "$default" ? aws_apigatewayv2_authorizer.token[0].id : null
}

resource "aws_apigatewayv2_authorizer" "token" {
  count            = local.token ? 1 : 0
  api_id           = aws_apigatewayv2_api.api.id
  name             = local.name
  authorizer_type  = "JWT"
  identity_sources = ["$request.header.X-Gateway-Token"]
  jwt_configuration {
    issuer   = local.pool ? "https://cognito-idp.${var.region}.amazonaws.com/${aws_cognito_user_pool.operators[0].id}" : var.token_issuer
    audience = [local.pool ? aws_cognito_user_pool_client.operators[0].id : var.token_audience]
  }
}

resource "aws_cognito_user_pool" "operators" {
  count             = local.pool ? 1 : 0
  name              = local.name
  mfa_configuration = "ON"
  admin_create_user_config {
    allow_admin_create_user_only = true
  }
  software_token_mfa_configuration {
    enabled = true
  }
  password_policy {
    minimum_length    = 14
    require_lowercase = true
    require_uppercase = true
    require_numbers   = true
    require_symbols   = true
  }
}

resource "aws_cognito_user_pool_client" "operators" {
  count                         = local.pool ? 1 : 0
  name                          = local.name
  user_pool_id                  = aws_cognito_user_pool.operators[0].id
  explicit_auth_flows           = ["ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]
  prevent_user_existence_errors = "ENABLED"
}

resource "aws_cloudwatch_log_group" "access" {
  name              = "/aws/apigateway/${local.name}-access"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.key.arn
}

resource "aws_apigatewayv2_stage" "api" {
  api_id      = aws_apigatewayv2_api.api.id
  name        = "$default"
  auto_deploy = true
  default_route_settings {
    throttling_rate_limit    = var.throttle_rate
    throttling_burst_limit   = var.throttle_burst
    detailed_metrics_enabled = true
  }
  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    # No path and no query: they may hold the caller's data.
    format = jsonencode({
      time        = "$context.requestTime"
      id          = "$context.requestId"
      method      = "$context.httpMethod"
      status      = "$context.status"
      ms          = "$context.responseLatency"
      function_ms = "$context.integrationLatency"
      bytes       = "$context.responseLength"
      error       = "$context.error.message"
    })
  }
}

resource "aws_lambda_permission" "api" {
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.function["api"].function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.api.execution_arn}/*"
}

# The audit trail in a bucket whose objects nobody changes. `terraform destroy` stops before it.

resource "aws_s3_bucket" "audit" {
  count               = local.audit ? 1 : 0
  bucket              = local.bucket
  object_lock_enabled = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "audit" {
  count  = local.audit ? 1 : 0
  bucket = aws_s3_bucket.audit[0].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.key.arn
    }
  }
}

resource "aws_s3_bucket_versioning" "audit" {
  count  = local.audit ? 1 : 0
  bucket = aws_s3_bucket.audit[0].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "audit" {
  count  = local.audit ? 1 : 0
  bucket = aws_s3_bucket.audit[0].id
  rule {
    default_retention {
      mode = "GOVERNANCE"
      days = var.audit_retention_days
    }
  }
  depends_on = [aws_s3_bucket_versioning.audit]
}

resource "aws_s3_bucket_lifecycle_configuration" "audit" {
  count  = local.audit ? 1 : 0
  bucket = aws_s3_bucket.audit[0].id
  rule {
    id     = "cheaper"
    status = "Enabled"
    filter {}
    transition {
      storage_class = "GLACIER_IR"
      days          = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_ownership_controls" "audit" {
  count  = local.audit ? 1 : 0
  bucket = aws_s3_bucket.audit[0].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "audit" {
  count                   = local.audit ? 1 : 0
  bucket                  = aws_s3_bucket.audit[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# An emulator has no TLS.
resource "aws_s3_bucket_policy" "audit" {
  count  = local.audit && var.private_addresses == "refuse" ? 1 : 0
  bucket = aws_s3_bucket.audit[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Encrypted"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.audit[0].arn, "${aws_s3_bucket.audit[0].arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
