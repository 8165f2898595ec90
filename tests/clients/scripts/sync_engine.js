// A sync engine copies all objects of the account into a PostgreSQL database. It prints the rows of some tables as JSON.
const [, , engine, database] = process.argv;
const { StripeSync, runMigrations } = require(engine);
const Stripe = require("stripe");
const { Client } = require("pg");

const address = new URL(process.env.TILLWAY_URL);
const place = { host: address.hostname, port: address.port, protocol: "http" };

async function main() {
  const client = new Client({ connectionString: database });
  await client.connect();
  await client.query("create role postgres"); // The migrations give it rights.
  await runMigrations({ databaseUrl: database, schema: "stripe" });
  const sync = new StripeSync({
    stripeSecretKey: process.env.TILLWAY_KEY,
    stripeWebhookSecret: "whsec_of_a_test",
    databaseUrl: database,
    poolConfig: { connectionString: database, max: 4 },
    backfillRelatedEntities: true,
    autoExpandLists: true,
  });
  sync.stripe = new Stripe(process.env.TILLWAY_KEY, place);
  await sync.syncBackfill({ object: "all" });
  const rows = {};
  for (const table of ["charges", "customers", "payment_intents", "payment_methods", "refunds", "products", "invoices"])
    rows[table] = Number((await client.query(`select count(*) from stripe.${table}`)).rows[0].count);
  await client.end();
  console.log(JSON.stringify(rows));
}

main().then(
  () => process.exit(0),
  (failure) => {
    console.error(failure);
    process.exit(1);
  },
);
