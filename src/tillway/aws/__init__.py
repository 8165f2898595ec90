"""Tillway as Lambda functions: doors to the platform that `wiring.py` builds (docs/aws.md)."""

import gc

# As in `serve.py`: imports make much and drop nothing, so that the collector would search it often and in vain.
gc.set_threshold(50_000)
