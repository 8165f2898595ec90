#!/bin/sh
# The calls of token and charge, as its own readers know them, against Tillway.
#
#   TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… sh token_charge.sh
set -eu
url=${TILLWAY_URL:-http://127.0.0.1:8420}
bearer="Authorization: Bearer $TILLWAY_KEY"

member() { # the first value of a member of the JSON on standard input
  sed 's/"'"$1"'":"\{0,1\}/\n/' | sed '2!d;s/[",}].*//'
}

token=$(curl -sS "$url/token" -H "$bearer" -d '{"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2040,
  "cvv": "123", "card_holder": "Grace Hopper"}' | member token)

# Sent again under the same key, it is done once and answered alike.
charge=$(curl -sS "$url/charge" -H "$bearer" -H "Idempotency-Key: $token" \
  -d "{\"token\": \"$token\", \"amount\": 4200, \"currency\": \"EUR\", \"reference\": \"order-7\"}" | member id)

curl -sS "$url/refund" -H "$bearer" -d "{\"charge_id\": \"$charge\", \"amount\": 1200}"
echo
curl -sS "$url/charge/$charge" -H "$bearer"
echo
