"""Settings: their order, their bounds, and the table in the documents."""

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

from tillway.cli.serve import serve
from tillway.settings import TABLE, Settings, SettingsInvalid, load

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_document_has_every_setting_as_it_is() -> None:
    lines = DOCUMENT.read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    defaults = Settings()
    assert rows == [
        [
            f"`{row.name}`",
            f"`{row.flag}`",
            f"`{row.variable}`",
            f"`{value}`" if (value := getattr(defaults, row.name)) not in (None, "") else "",
            f"{row.lowest} to {row.highest}" if row.lowest is not None else "",
            row.what,
        ]
        for row in TABLE
    ]


def test_the_table_the_settings_and_the_flags_of_serve_are_the_same() -> None:
    names = [row.name for row in TABLE]
    assert names == list(Settings.__struct_fields__)
    assert names == [name for name in inspect.signature(serve).parameters if name != "context"]


def test_defaults_lie_within_their_bounds() -> None:
    for row in TABLE:
        if row.lowest is not None:
            assert row.lowest <= getattr(Settings(), row.name) <= row.highest


def test_a_path_is_a_path_wherever_it_was_set() -> None:
    paths = [name for name, kind in get_type_hints(Settings).items() if kind in (Path, Path | None)]
    assert "statements_directory" in paths and "log_file" in paths
    for name in (each for each in paths if not each.startswith("tls_") and each != "oidc_client_secret_file"):
        [variable] = [row.variable for row in TABLE if row.name == name]
        for settings in (load({name: "somewhere"}, {}), load({}, {variable: "somewhere"})):
            assert getattr(settings, name) == Path("somewhere"), name


def test_flags_win_over_the_environment_over_the_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "tillway.toml").write_text('port = 1\nhost = "10.0.0.1"\nlog_level = "error"\nfee_rate_bps = 100\n')
    environment = {"TILLWAY_PORT": "2", "TILLWAY_HOST": "10.0.0.2", "TILLWAY_DATA_DIR": str(tmp_path)}
    settings = load({"port": 3, "host": None}, environment)
    assert settings == Settings(data_dir=tmp_path, port=3, host="10.0.0.2", log_level="error", fee_rate_bps=100)


def test_the_file_is_that_of_the_directory_which_wins(tmp_path: Path) -> None:
    (tmp_path / "tillway.toml").write_text("port = 7\n")
    assert load({"data_dir": tmp_path}, {"TILLWAY_DATA_DIR": "/nowhere"}).port == 7


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("port = 65536", "port in tillway.toml is 65536; it must lie from 0 to 65535"),
        ("port = -1", "from 0 to 65535"),
        ("port = true", "must be an integer"),
        ("port = 80.5", "must be an integer"),
        ('port = "eighty"', "must be an integer"),
        ("prot = 80", "'prot', which is not a setting; the settings are data_dir, store, keys, host, port"),
        ('log_level = "loud"', "debug, info, warning, error"),
        ("host = 5", "host in tillway.toml is 5; it must be text"),
        ('host = ""', "host in tillway.toml is empty"),
        ('public_url = "pay.example.com"', "https://pay.example.com"),
        ('public_url = "https://pay.example.com/?a=b"', "https://pay.example.com"),
        ('tls_cert = "a.pem"', "must be set together"),
        ('tls_cert = ""', "tls_cert in tillway.toml is empty"),
        ('smtp_url = "smtps://mail.example.com"', "smtp_url and smtp_from must be set together"),
        ('smtp_url = "mail.example.com"', "smtp_url in tillway.toml must be such as smtps://"),
        ('smtp_url = "smtps://me:secret@mail.example.com"', "the password goes into smtp_password_file"),
        ('smtp_from = "nobody"', "smtp_from in tillway.toml is 'nobody'"),
        ('data_dir = "x"', "use --data-dir"),
        ("port =", "is not TOML"),
        ("[server]\nport = 1", "'server', which is not a setting"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, file: str, says: str) -> None:
    (tmp_path / "tillway.toml").write_text(file)
    with pytest.raises(SettingsInvalid, match=says.replace("(", r"\(").replace("?", r"\?")):
        load({"data_dir": tmp_path}, {})


@pytest.mark.parametrize("value", ["", "tcp://10.0.0.1:8420", "+80", "8_0", "٨٠", "9" * 40])
def test_a_number_from_the_environment_is_digits(value: str) -> None:
    with pytest.raises(SettingsInvalid, match="port in the environment"):
        load({}, {"TILLWAY_PORT": value})


def test_a_url_loses_its_last_slash() -> None:
    assert load({"public_url": "https://pay.example.com/"}, {}).public_url == "https://pay.example.com"
