#!/bin/sh
# The order workflow's calls, against Tillway.
#
#   TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… sh orders.sh
set -eu
url=${TILLWAY_URL:-http://127.0.0.1:8420}
order=order-$$-$(date +%s)

call() {
  curl -sS -X "$1" "$url$2" -H "Authorization: Bearer $TILLWAY_KEY" ${3:+-d "$3"}
  echo
}

call PUT "/products/$order-pen" '{"name": "Pen", "price": 0.99, "available_count": 10, "type": "stationery"}'
call POST /orders "{\"order_id\": \"$order\", \"user_id\": \"user-2\",
  \"payment\": {\"type\": \"bank_account\", \"account_number\": \"000123456789\", \"routing_number\": \"110000000\"},
  \"products\": [{\"product_id\": \"$order-pen\", \"name\": \"Pen\", \"price\": 0.99, \"requested_count\": 3,
                  \"type\": \"stationery\", \"delivery_address\": \"1 Main Street\"}]}"
call GET "/orders/$order"
