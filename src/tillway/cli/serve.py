"""`tillway serve`: the server in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from tillway.cli.options import DataDir, StoreUrl
from tillway.cli.terminal import setting, settings_from
from tillway.settings import Settings


def serve(
    context: typer.Context,
    data_dir: DataDir = None,
    store: StoreUrl = None,
    keys: Annotated[str | None, setting("keys")] = None,
    host: Annotated[str | None, setting("host")] = None,
    port: Annotated[int | None, setting("port")] = None,
    public_url: Annotated[str | None, setting("public_url")] = None,
    tls_cert: Annotated[Path | None, setting("tls_cert")] = None,
    tls_key: Annotated[Path | None, setting("tls_key")] = None,
    fee_rate_bps: Annotated[int | None, setting("fee_rate_bps")] = None,
    fee_fixed_minor: Annotated[int | None, setting("fee_fixed_minor")] = None,
    settlement_days: Annotated[int | None, setting("settlement_days")] = None,
    lease_seconds: Annotated[int | None, setting("lease_seconds")] = None,
    answer_within_seconds: Annotated[int | None, setting("answer_within_seconds")] = None,
    payout_delay_seconds: Annotated[int | None, setting("payout_delay_seconds")] = None,
    disbursement_connector: Annotated[str | None, setting("disbursement_connector")] = None,
    workers: Annotated[int | None, setting("workers")] = None,
    courier_url: Annotated[str | None, setting("courier_url")] = None,
    courier_key_file: Annotated[Path | None, setting("courier_key_file")] = None,
    statements_directory: Annotated[Path | None, setting("statements_directory")] = None,
    backup_directory: Annotated[Path | None, setting("backup_directory")] = None,
    audit_heads_to: Annotated[str | None, setting("audit_heads_to")] = None,
    audit_heads_key_file: Annotated[Path | None, setting("audit_heads_key_file")] = None,
    smtp_url: Annotated[str | None, setting("smtp_url")] = None,
    smtp_from: Annotated[str | None, setting("smtp_from")] = None,
    smtp_password_file: Annotated[Path | None, setting("smtp_password_file")] = None,
    trusted_proxies: Annotated[str | None, setting("trusted_proxies")] = None,
    webhook_networks: Annotated[str | None, setting("webhook_networks")] = None,
    search_rows: Annotated[int | None, setting("search_rows")] = None,
    search_seconds: Annotated[int | None, setting("search_seconds")] = None,
    header_seconds: Annotated[int | None, setting("header_seconds")] = None,
    write_seconds: Annotated[int | None, setting("write_seconds")] = None,
    connections_per_address: Annotated[int | None, setting("connections_per_address")] = None,
    connections_exempt: Annotated[str | None, setting("connections_exempt")] = None,
    shutdown_seconds: Annotated[int | None, setting("shutdown_seconds")] = None,
    throttle_test_per_second: Annotated[int | None, setting("throttle_test_per_second")] = None,
    throttle_test_burst: Annotated[int | None, setting("throttle_test_burst")] = None,
    throttle_live_per_second: Annotated[int | None, setting("throttle_live_per_second")] = None,
    throttle_live_burst: Annotated[int | None, setting("throttle_live_burst")] = None,
    throttle_key_per_second: Annotated[int | None, setting("throttle_key_per_second")] = None,
    throttle_key_burst: Annotated[int | None, setting("throttle_key_burst")] = None,
    throttle_failures_per_second: Annotated[int | None, setting("throttle_failures_per_second")] = None,
    throttle_failures_burst: Annotated[int | None, setting("throttle_failures_burst")] = None,
    card_tries_per_address: Annotated[int | None, setting("card_tries_per_address")] = None,
    card_failures_per_key: Annotated[int | None, setting("card_failures_per_key")] = None,
    card_failures_per_card: Annotated[int | None, setting("card_failures_per_card")] = None,
    request_log_days: Annotated[int | None, setting("request_log_days")] = None,
    log_level: Annotated[str | None, setting("log_level")] = None,
    log_format: Annotated[str | None, setting("log_format")] = None,
    log_file: Annotated[Path | None, setting("log_file")] = None,
    log_addresses: Annotated[str | None, setting("log_addresses")] = None,
    metrics_listen: Annotated[str | None, setting("metrics_listen")] = None,
    metrics_merchants: Annotated[int | None, setting("metrics_merchants")] = None,
    traces: Annotated[str | None, setting("traces")] = None,
    trace_context: Annotated[str | None, setting("trace_context")] = None,
    dashboard: Annotated[str | None, setting("dashboard")] = None,
    dashboard_listen: Annotated[str | None, setting("dashboard_listen")] = None,
    dashboard_url: Annotated[str | None, setting("dashboard_url")] = None,
    session_idle_minutes: Annotated[int | None, setting("session_idle_minutes")] = None,
    refund_limit_support: Annotated[int | None, setting("refund_limit_support")] = None,
    refund_limit_reauth: Annotated[int | None, setting("refund_limit_reauth")] = None,
    require_second_factor: Annotated[str | None, setting("require_second_factor")] = None,
    oidc_issuer: Annotated[str | None, setting("oidc_issuer")] = None,
    oidc_client_id: Annotated[str | None, setting("oidc_client_id")] = None,
    oidc_client_secret_file: Annotated[Path | None, setting("oidc_client_secret_file")] = None,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C; requests in flight finish first."""
    _run(settings_from(context.params))


def _run(settings: Settings) -> None:
    from tillway.serve import run

    run(settings)
