#!/bin/sh
# The calls of customers and disbursements, as its own readers know them, against Tillway.
#
#   TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… sh disbursements.sh
set -eu
url=${TILLWAY_URL:-http://127.0.0.1:8420}
key="Authorization: Bearer $TILLWAY_KEY"
customer=${CUSTOMER:-bert0001}

# No content type is named: curl's own is taken too.
curl -sS "$url/v1/api/customer" -H "$key" -d "{\"customer_id\": \"$customer\", \"email\": \"$customer@example.com\"}"
echo
curl -sS "$url/v1/api/payments" -H "$key" -H "Idempotency-Key: first-$customer" \
  -d "{\"customer_id\": \"$customer\", \"email\": \"$customer@example.com\", \"amount\": 12.50, \"currency\": \"USD\"}"
echo
curl -sS "$url/v1/api/payment/$customer" -H "$key"
echo
