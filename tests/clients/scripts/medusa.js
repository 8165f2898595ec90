// Medusa's payment provider takes, captures and refunds a payment, and keeps a customer. It prints the outcomes as JSON.
const Stripe = require("stripe");
const provider = require("@medusajs/payment-stripe/dist/services/stripe-provider").default;

const address = new URL(process.env.TILLWAY_URL);
const place = { host: address.hostname, port: address.port, protocol: "http" };

async function main() {
  const stripe = new Stripe(process.env.TILLWAY_KEY, place);
  const shop = new provider({}, { apiKey: process.env.TILLWAY_KEY, webhookSecret: "whsec_of_a_test" });
  shop.stripe_ = stripe;
  const person = { id: "cus_1", email: "ada@shop.example", first_name: "Ada", last_name: "Byron" };
  const billing_address = { address_1: "1 Main Street", city: "Kiel", country_code: "DE", postal_code: "24103" };
  const holder = await shop.createAccountHolder({ context: { customer: { ...person, billing_address } } });
  const context = { account_holder: { data: holder.data } };
  const started = await shop.initiatePayment({
    amount: 42, currency_code: "eur", data: { session_id: "payses_1" }, context: { ...context, idempotency_key: "medusa-1" },
  });
  const raised = await shop.updatePayment({ amount: 50, currency_code: "eur", data: started.data, context: {} });
  await stripe.paymentIntents.confirm(started.id, { payment_method: "pm_card_visa", return_url: "https://shop.example" });
  const authorized = await shop.authorizePayment({ data: { id: started.id } });
  const captured = await shop.capturePayment({ data: { id: started.id }, context: {} });
  await shop.refundPayment({ amount: 20, data: captured.data, context: {} });
  const shown = await shop.retrievePayment({ data: { id: started.id } });
  const card = { payment_method: "pm_card_visa", confirm: true, return_url: "https://shop.example" };
  const declined = await shop.initiatePayment({
    amount: 10, currency_code: "eur", data: { ...card, payment_method: "pm_card_chargeDeclined" }, context: {},
  });
  const other = await shop.initiatePayment({ amount: 10, currency_code: "eur", data: {}, context: {} });
  const cancelled = await shop.cancelPayment({ data: { id: other.id }, context: {} });
  const saved = await shop.savePaymentMethod({ context, data: { ...card, confirm: true } });
  const methods = await shop.listPaymentMethods({ context });
  await shop.deletePaymentMethod({ context: {}, data: methods[0] });
  const payload = JSON.stringify({ id: "evt_1", object: "event", type: "payment_intent.succeeded", data: { object: captured.data } });
  const signature = stripe.webhooks.generateTestHeaderString({ payload, secret: "whsec_of_a_test" });
  const told = await shop.getWebhookActionAndData({
    data: JSON.parse(payload), rawData: payload, headers: { "stripe-signature": signature },
  });
  await shop.updateAccountHolder({ context: { ...context, customer: { ...person, last_name: "Lovelace" } } });
  await shop.deleteAccountHolder({ context });
  console.log(
    JSON.stringify({
      started: started.status, raised: raised.data.amount, authorized: authorized.status,
      captured: captured.data.status, left: shown.data.amount, declined: declined.status,
      cancelled: cancelled.data.status, saved: saved.data.status, methods: methods.length, told: told.action,
    }),
  );
}

main().then(
  () => process.exit(0),
  (failure) => {
    console.error(failure);
    process.exit(1);
  },
);
