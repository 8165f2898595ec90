"""dj-stripe copies all that the account has into a Django database. It prints the rows of some tables as JSON."""

import contextlib
import io
import json
import os
import sys

import django
from django.apps import apps
from django.conf import settings
from django.core.management import call_command

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "copy.sqlite3"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "djstripe"],
    USE_TZ=True,
    SECRET_KEY="of a test",
    STRIPE_API_HOST=os.environ["TILLWAY_URL"],
    STRIPE_TEST_SECRET_KEY=os.environ["TILLWAY_KEY"],
    STRIPE_LIVE_MODE=False,
    DJSTRIPE_FOREIGN_KEY_TO_FIELD="id",
)
django.setup()
said = io.StringIO()
try:
    with contextlib.redirect_stdout(said):
        call_command("migrate", verbosity=0)
        call_command("djstripe_sync_models", *sys.argv[1:], fail_on_error=True)
finally:
    print(*(line for line in said.getvalue().splitlines() if "id=" not in line), sep="\n", file=sys.stderr)
names = ("Account", "BalanceTransaction", "Charge", "Customer", "PaymentIntent", "PaymentMethod", "Refund")
print(json.dumps({name: apps.get_model("djstripe", name).objects.count() for name in names}))
