variable "stage" {
  type        = string
  description = "Name of the installation; it stands in the name of everything."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,23}$", var.stage))
    error_message = "A lower-case letter, then at most 23 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  type = string
}

variable "account" {
  type        = string
  description = "Number of the AWS account."
}

variable "partition" {
  type    = string
  default = "aws"
}

variable "code_bucket" {
  type        = string
  description = "Bucket of the package. `deploy/stage` makes one for each stage."
}

variable "code_key" {
  type        = string
  default     = "none"
  description = "Key of the zip (deploy/aws/package), named by its hash."
}

variable "image_uri" {
  type        = string
  default     = ""
  description = "Image of the functions in ECR, in place of the zip."
}

variable "runtime" {
  type    = string
  default = "python3.13"
}

variable "architecture" {
  type    = string
  default = "arm64"
}

variable "memory_megabytes" {
  type    = number
  default = 1024
}

variable "public_url" {
  type        = string
  default     = ""
  description = "URL at which browsers and providers reach the API; if empty, the one that API Gateway gives it."
}

variable "private_addresses" {
  type        = string
  default     = "refuse"
  description = "allow: webhooks and requests to banks may go to private addresses. Only for an emulator."
}

variable "deletion_protection" {
  type    = bool
  default = true
}

variable "log_level" {
  type    = string
  default = "info"
}

variable "log_retention_days" {
  type    = number
  default = 30
}

variable "tracing" {
  type        = string
  default     = "off"
  description = "off or xray."
}

variable "throttle_rate" {
  type    = number
  default = 1000
}

variable "throttle_burst" {
  type    = number
  default = 2000
}

variable "tokens_for" {
  type        = string
  default     = "none"
  description = "Calls that need a token (JWT) in the header X-Gateway-Token: none, operators or everything."
}

variable "token_issuer" {
  type        = string
  default     = ""
  description = "Issuer of those tokens; if empty, a Cognito user pool of the stage's own."
}

variable "token_audience" {
  type    = string
  default = ""
}

variable "audit_trail" {
  type        = string
  default     = "table"
  description = "With `bucket`, the worker copies the audit trail and the ledger to a bucket that keeps each object as it was written."
}

variable "audit_retention_days" {
  type    = number
  default = 400
}

variable "alarm_topic" {
  type        = string
  default     = ""
  description = "ARN of an SNS topic that hears of alarms."
}
