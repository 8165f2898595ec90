"""Tillway as Lambda functions: doors to the platform that `wiring.py` builds (docs/aws.md)."""
