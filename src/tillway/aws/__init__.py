"""Tillway as Lambda functions: doors to the platform that `wiring.py` builds (docs/aws.md)."""

import gc

# Imports make much and drop nothing, so that the collector would search it in vain. `boot.py` sets the threshold of a
# running function.
gc.set_threshold(1_000_000)
