// The frame's side: the only script that reads the card. It sends it to its own server, in a body, and to nobody else.

const given = JSON.parse(document.body.dataset.given);
const BASE = new URL("../..", location.href).href.replace(/\/$/, "");
const LOOPBACK = /^https?:\/\/(localhost|127\.0\.0\.1)(:[0-9]+)?$/;
const GROUPS = { amex: [4, 6, 5] };
const BRANDS = [
  ["visa", /^4/],
  ["mastercard", /^(5[1-5]|2(22[1-9]|2[3-9]|[3-6]|7[01]|720))/],
  ["amex", /^3[47]/],
  ["discover", /^(6011|64[4-9]|65)/],
  ["diners", /^3(0[0-5]|[689])/],
  ["jcb", /^35(2[89]|[3-8])/],
  ["unionpay", /^62/],
];

const field = (id) => document.getElementById(id);
const number = field("number");
const expiry = field("expiry");
const code = field("code");
const holder = field("name");
const fields = [number, expiry, code, holder];
const problem = field("problem");
let port = null;

const digitsOf = (text) => text.replace(/[^0-9]/g, "");
const brandOf = (digits) => (BRANDS.find(([, form]) => form.test(digits)) || ["unknown"])[0];

function passesLuhn(digits) {
  let sum = 0;
  [...digits].reverse().forEach((digit, place) => {
    const twice = place % 2 ? digit * 2 : Number(digit);
    sum += twice > 9 ? twice - 9 : twice;
  });
  return sum % 10 === 0;
}

function numberProblem() {
  const digits = digitsOf(number.value);
  if (digits.length < 12) return "incomplete_number";
  return digits.length > 19 || !passesLuhn(digits) ? "invalid_number" : null;
}

// Month and year of an expiry as people and browsers write it: 12/34, 12 / 2034, 1234, 1/34.
function dateOf(text) {
  const found = /^\s*([0-9]{1,2})\s*[/.-]?\s*((?:20)?[0-9]{2})\s*$/.exec(text);
  return found && { month: Number(found[1]), year: Number(found[2].length === 4 ? found[2] : "20" + found[2]) };
}

function expiryProblem() {
  const date = dateOf(expiry.value);
  if (!date) return "incomplete_expiry";
  if (date.month < 1 || date.month > 12) return "invalid_expiry_month";
  const now = new Date();
  if (date.year < now.getFullYear()) return "invalid_expiry_year_past";
  if (date.year === now.getFullYear() && date.month < now.getMonth() + 1) return "invalid_expiry_month_past";
  return null;
}

const codeProblem = () => (/^[0-9]{3,4}$/.test(code.value.trim()) ? null : "incomplete_cvc");

// The first field that is not right, as Stripe.js tells it: a validation error with a code. None: null.
function check(fields) {
  const checks = [
    [number, numberProblem, given.texts.number],
    [expiry, expiryProblem, given.texts.expiry],
    [code, codeProblem, given.texts.code],
  ];
  for (const [field, find, message] of checks) {
    const wrong = fields.includes(field) && find();
    if (wrong) return { field, error: { type: "validation_error", code: wrong, message } };
  }
  return null;
}

function mark(wrong) {
  for (const field of fields) field.toggleAttribute("aria-invalid", false);
  if (wrong) wrong.field.setAttribute("aria-invalid", "true");
  problem.textContent = wrong ? wrong.error.message : "";
}

const say = (message) => port && port.postMessage(message);

function tellChange(wrong) {
  say({
    event: "change",
    told: {
      empty: fields.every((field) => !field.value),
      complete: !check([number, expiry, code]),
      brand: brandOf(digitsOf(number.value)),
      error: wrong ? wrong.error : undefined,
      value: { postalCode: "" },
    },
  });
}

function cardFields() {
  const date = dateOf(expiry.value);
  return {
    number: digitsOf(number.value),
    exp_month: String(date.month),
    exp_year: String(date.year),
    cvc: code.value.trim(),
  };
}

const withName = (billing, name) => (name && !(billing && billing.name) ? { ...billing, name } : billing);

async function send(act, params) {
  const wrong = check([number, expiry, code]);
  mark(wrong);
  if (wrong) {
    wrong.field.focus();
    return { error: wrong.error };
  }
  const body = { ...params.body };
  const name = holder.value.trim();
  let path;
  if (act === "token") {
    path = "/v1/tokens";
    body.card = { ...body.card, ...cardFields() };
    if (name && !body.card.name) body.card.name = name;
  } else if (act === "method") {
    path = "/v1/payment_methods";
    body.card = cardFields();
    body.billing_details = withName(body.billing_details, name);
  } else {
    const noun = params.noun === "setup_intents" ? "setup_intents" : "payment_intents";
    path = `/v1/${noun}/${encodeURIComponent(params.id)}/confirm`;
    const method = { ...body.payment_method_data, card: cardFields() };
    method.billing_details = withName(method.billing_details, name);
    body.payment_method_data = method;
  }
  return callApi(BASE, given.key, "POST", path, body);
}

const ACTS = {
  clear: () => {
    for (const field of fields) field.value = "";
    mark(null);
    tellChange(null);
  },
  focus: () => number.focus(),
  blur: () => document.activeElement && document.activeElement.blur(),
  options: ({ options }) => {
    for (const [name, value] of Object.entries(options.style)) document.body.style[name] = value;
    for (const field of fields) field.disabled = options.disabled;
  },
};

async function hear({ id, act, params, options }) {
  if (act === "token" || act === "method" || act === "confirm") {
    say({ event: "answer", id, answer: await send(act, params) });
  } else if (Object.hasOwn(ACTS, act)) {
    ACTS[act]({ options });
  }
}

const tellSize = () => say({ event: "size", height: Math.ceil(document.documentElement.getBoundingClientRect().height) });

window.addEventListener("message", (event) => {
  const known = given.origins.includes(event.origin) || (given.loopback && LOOPBACK.test(event.origin));
  if (!known || window.parent === window || event.source !== window.parent) return;
  if (!event.data || event.data.tillway !== "connect" || !event.ports[0]) return;
  port = event.ports[0];
  port.onmessage = (told) => hear(told.data);
  say({ event: "ready" });
  tellSize();
});
new ResizeObserver(tellSize).observe(document.documentElement);

// A field is only rewritten while the payer types at its end, so that the caret stays where it is.
function rewrite(field, text) {
  if (field.selectionStart === field.value.length && field.value !== text) field.value = text;
}

function group(digits) {
  const sizes = GROUPS[brandOf(digits)] || [4, 4, 4, 4, 3];
  const parts = [];
  for (const size of sizes) {
    if (digits) parts.push(digits.slice(0, size));
    digits = digits.slice(size);
  }
  return parts.join(" ");
}

number.addEventListener("input", () => rewrite(number, group(digitsOf(number.value).slice(0, 19))));
expiry.addEventListener("input", (event) => {
  const typed = digitsOf(expiry.value);
  if (event.inputType === "insertText" && typed.length === 2 && /^[0-9]{2}$/.test(expiry.value)) {
    rewrite(expiry, typed + " / ");
  }
});
for (const field of fields) {
  field.addEventListener("input", () => {
    if (field.hasAttribute("aria-invalid")) mark(null);
    tellChange(null);
  });
  field.addEventListener("blur", () => {
    const wrong = field.value ? check([field]) : null;
    if (wrong) {
      mark(wrong);
      tellChange(wrong);
    }
    say({ event: "blur" });
  });
  field.addEventListener("focus", () => say({ event: "focus" }));
}
field("card").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") say({ event: "escape" });
  if (event.key === "Enter") say({ event: "submit" });
});
