// A shop of one pot, which takes cards with tillway.js. The card's number goes from the browser to Tillway alone.
//
// npm install express stripe
// TILLWAY_URL=http://127.0.0.1:8420 TILLWAY_KEY=sk_test_… TILLWAY_PUBLISHABLE_KEY=pk_test_… node shop.js
"use strict";

const express = require("express");
const Stripe = require("stripe");

const url = new URL(process.env.TILLWAY_URL || "http://127.0.0.1:8420");
const tillway = new Stripe(process.env.TILLWAY_KEY, {
  protocol: url.protocol.slice(0, -1),
  host: url.hostname,
  port: url.port || (url.protocol === "https:" ? 443 : 80),
});
const shop = express();

const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Kettle & Leaf</title>
<h1>A cast-iron pot, 119.00 EUR</h1>
<form id="pay"><div id="card"></div><button>Pay</button><p id="said" role="alert"></p></form>
<script src="${url.origin}/js/v1/"></script>
<script>
  const tillway = Tillway("${process.env.TILLWAY_PUBLISHABLE_KEY}");
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
</script></html>`;

shop.get("/", (request, response) => response.type("html").send(page));

shop.post("/payments", async (request, response) => {
  // The price is the shop's, never the browser's.
  const payment = await tillway.paymentIntents.create({
    amount: 11900,
    currency: "eur",
    automatic_payment_methods: { enabled: true, allow_redirects: "never" },
    description: "A cast-iron pot",
  });
  response.json({ client_secret: payment.client_secret });
});

shop.get("/thanks/:payment", async (request, response) => {
  // The server asks Tillway: a browser can claim anything. A shop that delivers hears the webhook instead.
  const payment = await tillway.paymentIntents.retrieve(request.params.payment);
  if (payment.status === "succeeded") response.send("Thank you. The pot is yours.");
  else response.status(402).send("Not paid yet.");
});

shop.listen(Number(process.env.PORT || 5000), "127.0.0.1");
