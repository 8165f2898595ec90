// A shop's calls by stripe-node, in words that every version since 8 has. It prints what it saw as JSON.
"use strict";
const Stripe = require("stripe");
const url = new URL(process.env.TILLWAY_URL);
const stripe = Stripe(process.env.TILLWAY_KEY, { protocol: "http", host: url.hostname, port: url.port });
const methods = { enabled: true, allow_redirects: "never" };

async function main() {
  const customer = await stripe.customers.create({ email: "ada@example.com", name: "Ada", metadata: { order: "7" } });
  const method = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
  const given = {
    amount: 4200,
    currency: "eur",
    customer: customer.id,
    payment_method: method.id,
    automatic_payment_methods: methods,
    confirm: true,
    expand: ["latest_charge"],
  };
  const payment = await stripe.paymentIntents.create(given, { idempotencyKey: "shop-7" });
  const again = await stripe.paymentIntents.create(given, { idempotencyKey: "shop-7" });
  let declined = "";
  try {
    await stripe.paymentIntents.create({
      amount: 100,
      currency: "eur",
      payment_method: "pm_card_chargeDeclinedInsufficientFunds",
      automatic_payment_methods: methods,
      confirm: true,
    });
  } catch (error) {
    declined = error.type === "StripeCardError" ? error.decline_code : String(error);
  }
  const held = await stripe.paymentIntents.create({
    amount: 900,
    currency: "eur",
    payment_method: "pm_card_visa",
    automatic_payment_methods: methods,
    capture_method: "manual",
    confirm: true,
  });
  const captured = await stripe.paymentIntents.capture(held.id, { amount_to_capture: 800 });
  const refund = await stripe.refunds.create({ payment_intent: payment.id, amount: 200 });
  for (let number = 0; number < 3; number += 1) await stripe.customers.create({ email: `${number}@example.com` });
  const listed = await stripe.customers.list({ limit: 2 }).autoPagingToArray({ limit: 100 });
  const events = await stripe.events.list({ limit: 100 });
  const types = new Set(events.data.map((event) => event.type));
  const session = await stripe.checkout.sessions.create({
    mode: "payment",
    success_url: "https://shop.example/done",
    line_items: [
      { price_data: { currency: "eur", unit_amount: 500, product_data: { name: "Tea" } }, quantity: 1 },
    ],
  });
  const signed = stripe.webhooks.generateTestHeaderString({ payload: '{"id":"evt_1"}', secret: "whsec_1" });
  const told = stripe.webhooks.constructEvent('{"id":"evt_1"}', signed, "whsec_1");
  const deleted = await stripe.customers.del(customer.id);
  console.log(
    JSON.stringify({
      version: Stripe.PACKAGE_VERSION || require("stripe/package.json").version,
      payment: payment.status,
      same: again.id === payment.id,
      charge: payment.latest_charge.amount,
      declined,
      captured: captured.amount_received,
      refund: refund.status,
      customers: new Set(listed.map((one) => one.id)).size,
      events: ["charge.refunded", "payment_intent.succeeded"].filter((type) => types.has(type)),
      session: session.url.split("/")[3],
      deleted: deleted.deleted && told.id === "evt_1",
    }),
  );
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
