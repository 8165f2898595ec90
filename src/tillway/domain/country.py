"""The countries that addresses and accounts may name."""

from typing import Final

COUNTRIES: Final = frozenset(
    row[0] + second
    for row in (
        "ADEFGILMOQRSTUWXZ",
        "BABDEFGHIJLMNOQRSTVWYZ",
        "CACDFGHIKLMNORUVWXYZ",
        "DEJKMOZ",
        "ECEGHRST",
        "FIJKMOR",
        "GABDEFGHILMNPQRSTUWY",
        "HKMNRTU",
        "IDELMNOQRST",
        "JEMOP",
        "KEGHIMNPRWYZ",
        "LABCIKRSTUVY",
        "MACDEFGHKLMNOPQRSTUVWXYZ",
        "NACEFGILOPRUZ",
        "OM",
        "PAEFGHKLMNRSTWY",
        "QA",
        "REOSUW",
        "SABCDEGHIJKLMNORSTVXYZ",
        "TCDFGHJKLMNORTVWZ",
        "UAGMSYZ",
        "VACEGINU",
        "WFS",
        "XK",
        "YET",
        "ZAMW",
    )
    for second in row[1:]
)
"""ISO 3166-1 alpha-2, each first letter with all its second letters; and XK, which is in use for Kosovo."""
