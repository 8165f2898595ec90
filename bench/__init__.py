"""How fast Tillway takes payments, beside a bare server, another Stripe stand-in and the disk: `python -m bench`."""
