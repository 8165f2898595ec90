#!/bin/sh
# The online payment platform's calls, as its own readers know them, against Tillway.
#
#   TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_MERCHANT=acct_… TILLWAY_KEY=sk_test_… sh online_platform.sh
set -eu
url=${TILLWAY_URL:-http://127.0.0.1:8420}
who="\"merchantId\": \"$TILLWAY_MERCHANT\", \"apiKey\": \"$TILLWAY_KEY\", \"customerId\": \"customer-2\""

# No content type is named: curl's own is taken too.
paid=$(curl -sS "$url/process-payments" -d "{$who, \"amount\": 12.50, \"number\": \"4242424242424242\",
  \"expiryMonth\": 12, \"expiryYear\": 2034, \"cvv\": \"123\"}")
echo "$paid"
transaction=$(echo "$paid" | sed 's/.*"transactionId":"\([^"]*\)".*/\1/')

curl -sS "$url/process-refunds" -H "Idempotency-Key: refund-$transaction" \
  -d "{$who, \"transactionId\": \"$transaction\", \"amount\": 5}"
echo
curl -sS "$url/get-payment-details" -d "{$who, \"transactionId\": \"$transaction\"}"
echo
