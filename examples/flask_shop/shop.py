"""A shop of one pot, which takes cards with tillway.js. The card's number goes from the browser to Tillway alone.

pip install flask stripe
TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… TILLWAY_PUBLISHABLE_KEY=pk_test_… python shop.py
"""

import os

import stripe
from flask import Flask, Response, jsonify

URL = os.environ.get("TILLWAY_URL", "http://127.0.0.1:8420")
PUBLISHABLE_KEY = os.environ["TILLWAY_PUBLISHABLE_KEY"]
tillway = stripe.StripeClient(os.environ["TILLWAY_KEY"], base_addresses={"api": URL})
app = Flask(__name__)

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Kettle & Leaf</title>
<h1>A cast-iron pot, 119.00 EUR</h1>
<form id="pay"><div id="card"></div><button>Pay</button><p id="said" role="alert"></p></form>
<script src="%(url)s/js/v1/"></script>
<script>
  const tillway = Tillway("%(key)s");
  const card = tillway.elements().create("card");
  card.mount("#card");
  let begun; // One payment for each page: a second press pays nothing more.
  document.getElementById("pay").addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = document.getElementById("said");
    begun ??= fetch("/payments", { method: "POST" }).then((answer) => answer.json());
    const { client_secret } = await begun;
    const { error, paymentIntent } = await tillway.confirmCardPayment(client_secret, { payment_method: { card } });
    if (error) said.textContent = error.message;
    else location.assign("/thanks/" + paymentIntent.id);
  });
</script></html>"""


@app.get("/")
def show() -> Response:
    return Response(PAGE % {"url": URL, "key": PUBLISHABLE_KEY}, content_type="text/html; charset=utf-8")


@app.post("/payments")
def begin() -> Response:
    # The price is the shop's, never the browser's.
    payment = tillway.v1.payment_intents.create(
        {
            "amount": 11900,
            "currency": "eur",
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "description": "A cast-iron pot",
        }
    )
    return jsonify(client_secret=payment.client_secret)


@app.get("/thanks/<payment>")
def thank(payment: str) -> tuple[str, int]:
    # The server asks Tillway: a browser can claim anything. A shop that delivers hears the webhook instead.
    found = tillway.v1.payment_intents.retrieve(payment)
    return ("Thank you. The pot is yours.", 200) if found.status == "succeeded" else ("Not paid yet.", 402)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
