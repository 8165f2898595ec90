#!/bin/sh
# The gateway's calls, as its own readers know them, against Tillway.
#
#   TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_MERCHANT=acct_… TILLWAY_KEY=sk_test_… sh gateway.sh
set -eu
url=${TILLWAY_URL:-http://127.0.0.1:8420}
bearer="Authorization: Bearer $TILLWAY_KEY"

member() { # the value of a member of the JSON on standard input
  sed 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/'
}

# No content type is named: curl's own is taken too.
payment=$(curl -sS "$url/create-payment" -H "$bearer" -d "{\"merchantId\": \"$TILLWAY_MERCHANT\"}" | member paymentId)
echo "created $payment"

make() {
  curl -sS "$url/make-payment" -H "$bearer" -d "{\"paymentId\": \"$payment\", \"merchantId\": \"$TILLWAY_MERCHANT\",
    \"cardNumber\": \"1234432198761543\", \"expiryYear\": 2000, \"expiryMonth\": 12, \"cvv\": \"123\", \"amount\": 100,
    \"currency\": \"GBP\", \"cardName\": \"Ada Lovelace\", \"billingAddress\": \"12 St James's Square, London\"}"
  echo
}
make
make # is answered with what became of the first, and the bank is not called

found=$(curl -sS "$url/get-payment?merchantId=$TILLWAY_MERCHANT&paymentId=$payment" -H "$bearer")
echo "$(echo "$found" | member status) $(echo "$found" | member cardNumber)" \
  "$(echo "$found" | member amount) $(echo "$found" | member currency)"
