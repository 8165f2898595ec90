# The alarms and the numbers from log lines, as in ../template.yaml.

locals {
  lines = {
    api-errors-logged       = { function = "api", metric = "errors-logged", pattern = "{ $.level = \"error\" }" }
    worker-errors-logged    = { function = "worker", metric = "errors-logged", pattern = "{ $.level = \"error\" }" }
    step-errors-logged      = { function = "step", metric = "errors-logged", pattern = "{ $.level = \"error\" }" }
    worker-webhook-failures = { function = "worker", metric = "webhook-failures", pattern = "{ $.message = \"a webhook was not delivered\" }" }
    api-clock-trouble       = { function = "api", metric = "clock-trouble", pattern = "{ $.message = \"no new payment is begun until the clock is corrected*\" }" }
    worker-doubts           = { function = "worker", metric = "doubts", pattern = "{ $.message = \"tasks need attention\" }", value = "$.doubts" }
    worker-oldest-due       = { function = "worker", metric = "oldest-due-seconds", pattern = "{ $.message = \"tasks need attention\" }", value = "$.oldest_due_seconds" }
  }

  alarms = {
    server-errors = {
      description = "A request was answered with a 5xx. Read the error lines of the api function, and the access log for a time-out of the gateway (no line of the function)."
      namespace   = "AWS/ApiGateway"
      metric      = "5xx"
      dimensions  = { ApiId = aws_apigatewayv2_api.api.id }
      statistic   = "Sum"
      period      = 60
      periods     = 1
      threshold   = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    slow = {
      description = "One request in a hundred takes over 3 s. Compare function_ms with ms in the access log; then look at the provider in the request lines (connector, ms) and at throttles of the table."
      namespace   = "AWS/ApiGateway"
      metric      = "Latency"
      dimensions  = { ApiId = aws_apigatewayv2_api.api.id }
      statistic   = "p99"
      period      = 300
      periods     = 3
      threshold   = 3000
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    api-errors = {
      description = "The api function crashed or timed out. Its log has a traceback or \"Task timed out\". The payment is taken over when its lease of 40 s ends; callers repeat with the same Idempotency-Key."
      namespace   = "AWS/Lambda"
      metric      = "Errors"
      dimensions  = { FunctionName = "${local.name}-api" }
      statistic   = "Sum"
      period      = 60
      periods     = 1
      threshold   = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    worker-errors = {
      description = "The worker fails again and again. Read its log; tasks stay in the table and come back when their lease ends."
      namespace   = "AWS/Lambda"
      metric      = "Errors"
      dimensions  = { FunctionName = "${local.name}-worker" }
      statistic   = "Sum"
      period      = 300
      periods     = 1
      threshold   = 3
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    step-errors = {
      description = "The step function fails. After eight faults of a step its order is undone. Read its log before you deploy anew."
      namespace   = "AWS/Lambda"
      metric      = "Errors"
      dimensions  = { FunctionName = "${local.name}-step" }
      statistic   = "Sum"
      period      = 300
      periods     = 1
      threshold   = 3
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    api-throttles = {
      description = "Lambda refuses invocations of the api function. Raise the concurrency of the account (Service Quotas), or lower ThrottleRate so that callers get a 429 instead of a 503."
      namespace   = "AWS/Lambda"
      metric      = "Throttles"
      dimensions  = { FunctionName = "${local.name}-api" }
      statistic   = "Sum"
      period      = 60
      periods     = 1
      threshold   = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    worker-throttles = {
      description = "Lambda refuses invocations of the worker; webhooks and debits come late. Raise the concurrency of the account."
      namespace   = "AWS/Lambda"
      metric      = "Throttles"
      dimensions  = { FunctionName = "${local.name}-worker" }
      statistic   = "Sum"
      period      = 300
      periods     = 1
      threshold   = 10
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    table-throttled-writes = {
      description = "The table refuses writes. A new table takes 4,000 units a second and doubles as it grows; pre-warm it before a sale. One hot merchant is limited by its partition (docs/stores.md)."
      namespace   = "AWS/DynamoDB"
      metric      = "WriteThrottleEvents"
      dimensions  = { TableName = local.name }
      statistic   = "Sum"
      period      = 60
      periods     = 3
      threshold   = 10
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    table-throttled-reads = {
      description = "The table refuses reads. See the alarm for writes; long listings and reports read most."
      namespace   = "AWS/DynamoDB"
      metric      = "ReadThrottleEvents"
      dimensions  = { TableName = local.name }
      statistic   = "Sum"
      period      = 60
      periods     = 3
      threshold   = 10
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    due-tasks-wait = {
      description = "Tasks that are due wait in the stream for over a minute. See whether the worker fails or is throttled; the rule of every minute does them meanwhile."
      namespace   = "AWS/Lambda"
      metric      = "IteratorAge"
      dimensions  = { FunctionName = "${local.name}-worker" }
      statistic   = "Maximum"
      period      = 60
      periods     = 5
      threshold   = 60000
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    messages-wait = {
      description = "A message of the delay queue waits for 20 minutes, of which 15 may be its delay. See whether the worker fails."
      namespace   = "AWS/SQS"
      metric      = "ApproximateAgeOfOldestMessage"
      dimensions  = { QueueName = "${local.name}-soon" }
      statistic   = "Maximum"
      period      = 60
      periods     = 3
      threshold   = 1200
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    no-net = {
      description = "The rule of every minute does not run the worker, so tasks due later than 15 minutes are not done. See whether the rule is disabled."
      namespace   = "AWS/Events"
      metric      = "Invocations"
      dimensions  = { RuleName = "${local.name}-every-minute" }
      statistic   = "Sum"
      period      = 300
      periods     = 2
      threshold   = 1
      comparison  = "LessThanThreshold"
      missing     = "breaching"
    }
    dead-letters = {
      description = "A wake-up failed for good. Its message says which; the tasks themselves are in the table, and the rule of every minute does them. Read the log of the worker at that time, then purge the queue."
      namespace   = "AWS/SQS"
      metric      = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = "${local.name}-failures" }
      statistic   = "Maximum"
      period      = 60
      periods     = 1
      threshold   = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    errors-logged = {
      description = "A function logged an error: a provider that contradicts itself, a notice that cannot be true, a broken chain of the audit trail. The line names its record; docs/recovery.md has the steps."
      namespace   = local.name
      metric      = "errors-logged"
      dimensions  = {}
      statistic   = "Sum"
      period      = 300
      periods     = 1
      threshold   = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    webhooks-fail = {
      description = "Deliveries of webhooks fail. The lines name endpoint and answer; where all endpoints fail, look at your own way out. They come again for three days."
      namespace   = local.name
      metric      = "webhook-failures"
      dimensions  = {}
      statistic   = "Sum"
      period      = 900
      periods     = 2
      threshold   = 50
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    clock = {
      description = "A function does not believe its clock, and begins no payment. The line says by how much; a new environment has a new clock, so deploy the function again."
      namespace   = local.name
      metric      = "clock-trouble"
      dimensions  = {}
      statistic   = "Sum"
      period      = 60
      periods     = 1
      threshold   = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    doubts-open = {
      description = "An operation at a provider is in doubt for so long that an operator has to look. List it with tillway doubts list or GET /ops/v1/doubts, ask the provider, and decide; docs/recovery.md has the steps."
      namespace   = local.name
      metric      = "doubts"
      dimensions  = {}
      statistic   = "Maximum"
      period      = 600
      periods     = 1
      threshold   = 1
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
    tasks-late = {
      description = "A task is due for over five minutes. See whether the worker fails or is throttled, and whether its lines name a task that fails again and again."
      namespace   = local.name
      metric      = "oldest-due-seconds"
      dimensions  = {}
      statistic   = "Maximum"
      period      = 600
      periods     = 1
      threshold   = 300
      comparison  = "GreaterThanOrEqualToThreshold"
      missing     = "notBreaching"
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "lines" {
  for_each       = local.lines
  name           = "${local.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.function[each.value.function].name
  pattern        = each.value.pattern
  metric_transformation {
    namespace     = local.name
    name          = each.value.metric
    value         = try(each.value.value, "1")
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each            = local.alarms
  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  period              = each.value.period
  evaluation_periods  = each.value.periods
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_topic == "" ? [] : [var.alarm_topic]
}

# The body of the dashboard is the template's own: its `${…}` are the same in both languages but for these.

locals {
  template = file("${path.module}/../template.yaml")
  body     = regex("(?s)DashboardBody: !Sub [|]\n(.*?)\n\nOutputs:", local.template)[0]
}

resource "aws_cloudwatch_dashboard" "dashboard" {
  dashboard_name = local.name
  dashboard_body = replace(replace(replace(replace(local.body,
    "$${Stage}", var.stage),
    "$${AWS::Region}", var.region),
    "$${Api}", aws_apigatewayv2_api.api.id),
  "$${OrderMachine}", local.order)
}

output "api_id" {
  value = aws_apigatewayv2_api.api.id
}

output "url" {
  value = var.public_url == "" ? aws_apigatewayv2_api.api.api_endpoint : var.public_url
}

output "user_pool" {
  value = one(aws_cognito_user_pool.operators[*].id)
}
