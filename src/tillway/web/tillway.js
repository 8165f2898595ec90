// The shop's side: it makes the frame of the card, asks it to send the card, and shows a challenge in a dialog.
// It never sees a card number. The frame answers on a port of its own, which no other page has.

const script = document.currentScript || document.querySelector('script[src*="/js/v1"]');
if (!script || !script.src) throw new Error("Load tillway.js by a script tag with its address at your Tillway server.");
const BASE = script.src.split(/\/js\/v1(?:[/?#]|$)/)[0];
const ORIGIN = new URL(BASE).origin;

// A frame answers at once when it is loaded. One that the browser keeps out of the page is "loaded" too, and is silent.
const LOADED_SECONDS = 4;
const LOADS_SECONDS = 20;
const POLLS_MAX = 600;

const WORDS = {
  en: ["Card", "Your bank wants to see that it is you", "Close"],
  de: ["Karte", "Ihre Bank möchte sehen, dass Sie es sind", "Schließen"],
  fr: ["Carte", "Votre banque veut vérifier que c’est bien vous", "Fermer"],
  es: ["Tarjeta", "Su banco quiere comprobar que es usted", "Cerrar"],
};

const NOUNS = {
  pi: { path: "payment_intents", result: "paymentIntent", object: "payment_intent", error: "last_payment_error" },
  seti: { path: "setup_intents", result: "setupIntent", object: "setup_intent", error: "last_setup_error" },
};

function words(locale) {
  const wanted = locale && locale !== "auto" ? locale : navigator.language || "en";
  return WORDS[wanted.slice(0, 2).toLowerCase()] || WORDS.en;
}

function misuse(message) {
  const error = new Error(message);
  error.name = "IntegrationError";
  return error;
}

const later = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

// The object behind a client secret: its noun, its id and the secret.
function subjectOf(secret) {
  const found = /^((pi|seti)_[0-9A-Za-z]+)_secret_[0-9A-Za-z]+$/.exec(secret || "");
  if (!found) throw misuse("A client secret has the form pi_…_secret_… or seti_…_secret_….");
  return { noun: NOUNS[found[2]], id: found[1], secret };
}

class CardElement {
  constructor(key, options) {
    this._key = key;
    this._options = options || {};
    this._handlers = {};
    this._link = null;
  }

  mount(target) {
    const place = typeof target === "string" ? document.querySelector(target) : target;
    if (!place) throw misuse("There is no element " + target + " to mount the card in.");
    this.unmount();
    const frame = document.createElement("iframe");
    const link = { frame, place, port: null, asked: new Map(), count: 0, refused: false };
    link.opened = new Promise((open) => (link.open = open));
    this._link = link;
    const query = new URLSearchParams({ key: this._key });
    if (this._options.locale && this._options.locale !== "auto") query.set("locale", this._options.locale);
    frame.src = BASE + "/js/v1/card?" + query;
    frame.title = words(this._options.locale)[0];
    Object.assign(frame.style, { border: "0", width: "100%", height: "260px", display: "block" });
    frame.addEventListener("load", () => this._connect(link));
    place.replaceChildren(frame);
    setTimeout(() => this._refuse(link), LOADS_SECONDS * 1000);
  }

  unmount() {
    const link = this._link;
    if (!link) return;
    this._link = null;
    link.frame.remove();
    const error = { type: "invalid_request_error", message: "The card was taken off the page." };
    link.open({ error });
    for (const answer of link.asked.values()) answer({ error });
  }

  destroy() {
    this.unmount();
    this._handlers = {};
  }

  on(event, handler) {
    (this._handlers[event] ||= []).push(handler);
    return this;
  }

  once(event, handler) {
    const one = (value) => {
      this.off(event, one);
      handler(value);
    };
    return this.on(event, one);
  }

  off(event, handler) {
    this._handlers[event] = (this._handlers[event] || []).filter((one) => handler && one !== handler);
    return this;
  }

  update(options) {
    Object.assign(this._options, options);
    this._tell({ act: "options", options: this._shown() });
  }

  clear() {
    this._tell({ act: "clear" });
  }

  focus() {
    if (this._link) this._link.frame.focus();
    this._tell({ act: "focus" });
  }

  blur() {
    this._tell({ act: "blur" });
  }

  // Asks the frame to send the card with these parameters. Resolves to {document} or {error}.
  async _ask(act, params) {
    const link = this._link;
    if (!link) throw misuse("The card is not on the page. Mount it before you use it.");
    const outcome = await link.opened;
    if (outcome.error) return outcome;
    return new Promise((answer) => {
      const id = ++link.count;
      link.asked.set(id, answer);
      link.port.postMessage({ id, act, params });
    });
  }

  _tell(message) {
    if (this._link && this._link.port) this._link.port.postMessage(message);
  }

  _shown() {
    const base = (this._options.style && this._options.style.base) || {};
    const style = {};
    for (const name of ["color", "fontFamily", "fontSize"]) if (typeof base[name] === "string") style[name] = base[name];
    return { style, disabled: !!this._options.disabled };
  }

  _connect(link) {
    if (this._link !== link || !link.frame.contentWindow) return;
    const channel = new MessageChannel();
    channel.port1.onmessage = (event) => this._hear(link, channel.port1, event.data);
    link.frame.contentWindow.postMessage({ tillway: "connect" }, ORIGIN, [channel.port2]);
    setTimeout(() => this._refuse(link), LOADED_SECONDS * 1000);
  }

  _hear(link, port, said) {
    if (this._link !== link) return;
    switch (said.event) {
      case "ready":
        link.port = port;
        port.postMessage({ act: "options", options: this._shown() });
        link.open({});
        link.opened = Promise.resolve({}); // Also where it was too late, and refused before.
        return this._emit("ready", { elementType: "card" });
      case "size":
        link.frame.style.height = Math.min(Math.max(Number(said.height) || 0, 40), 1200) + "px";
        return;
      case "answer": {
        const answer = link.asked.get(said.id);
        link.asked.delete(said.id);
        if (answer) answer(said.answer);
        return;
      }
      case "submit": {
        const form = link.place.closest("form");
        if (form) form.requestSubmit();
        return;
      }
      case "change":
      case "focus":
      case "blur":
      case "escape":
        return this._emit(said.event, Object.assign({ elementType: "card" }, said.told));
    }
  }

  _refuse(link) {
    if (this._link !== link || link.port || link.refused) return;
    link.refused = true;
    const message =
      "The card frame of " + ORIGIN + " did not open in " + location.origin + ". Register this origin for the key: " +
      "tillway keys origins KEY --add " + location.origin + " (KEY is the key's id in `tillway keys list`), and look " +
      "whether the key is still good.";
    console.error("tillway.js: " + message);
    const error = { type: "invalid_request_error", code: "card_frame_refused", message };
    link.open({ error });
    this._emit("loaderror", { elementType: "card", error });
  }

  _emit(event, value) {
    for (const handler of [...(this._handlers[event] || [])]) handler(value);
  }
}

// Shows the page of a challenge in a dialog. `over` resolves when the payer closes it; `pace(ms)` waits, but no longer
// than until the challenge says that it has ended.
function openDialog(address, locale) {
  const [, title, close] = words(locale);
  const dialog = document.createElement("dialog");
  const button = document.createElement("button");
  const frame = document.createElement("iframe");
  dialog.setAttribute("aria-label", title);
  Object.assign(dialog.style, {
    width: "min(600px, 96vw)",
    height: "min(680px, 92vh)",
    maxWidth: "none",
    maxHeight: "none",
    padding: "0",
    border: "0",
    borderRadius: "12px",
    overflow: "hidden",
    background: "#fff",
    boxShadow: "0 0 0 100vmax rgb(0 0 0 / .5)",
  });
  button.type = "button";
  button.textContent = close;
  Object.assign(button.style, {
    display: "block",
    margin: "0 0 0 auto",
    padding: "0 16px",
    height: "44px",
    border: "0",
    background: "none",
    color: "#1a1916",
    font: "600 15px system-ui, sans-serif",
    cursor: "pointer",
  });
  frame.title = title;
  // The page of a bank may not lead the shop's page away.
  frame.setAttribute("sandbox", "allow-forms allow-scripts allow-same-origin allow-popups");
  frame.referrerPolicy = "no-referrer";
  frame.src = address;
  Object.assign(frame.style, { border: "0", width: "100%", height: "calc(100% - 44px)", display: "block" });
  dialog.append(button, frame);
  document.body.append(dialog);

  let wake = () => {};
  const hear = (event) => {
    const ours = event.origin === ORIGIN && event.source === frame.contentWindow;
    if (ours && event.data && event.data.tillway === "returned") wake();
  };
  const shown = {
    closed: false,
    pace: (milliseconds) =>
      new Promise((go) => {
        wake = go;
        if (shown.closed) go();
        setTimeout(go, milliseconds);
      }),
    remove: () => {
      window.removeEventListener("message", hear);
      dialog.close();
      dialog.remove();
    },
  };
  window.addEventListener("message", hear);
  button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    shown.closed = true;
    wake();
  });
  dialog.showModal();
  return shown;
}

function Tillway(key, options) {
  if (typeof key !== "string" || !/^pk_(test|live)_[0-9A-Za-z]+$/.test(key)) {
    throw misuse("Tillway(key) takes a publishable key (pk_…). A secret key must never be in a page.");
  }
  const { locale } = options || {};

  const retrieve = ({ noun, id, secret }) =>
    callApi(BASE, key, "GET", `/v1/${noun.path}/${id}?client_secret=${encodeURIComponent(secret)}`);

  function outcome({ noun }, intent) {
    const failed = intent.status === "requires_payment_method" && intent[noun.error];
    return failed ? { error: { ...failed, [noun.object]: intent } } : { [noun.result]: intent };
  }

  // Leads the payer through the challenge of an object that requires one, and answers how it ended.
  async function challenge(subject, intent) {
    const next = intent.next_action || {};
    const address = (next.use_stripe_sdk || {}).stripe_js || (next.redirect_to_url || {}).url;
    if (intent.status !== "requires_action" || !address) return outcome(subject, intent);
    const dialog = openDialog(address, locale);
    try {
      for (let polls = 0; polls < POLLS_MAX; polls++) {
        await dialog.pace(polls < 20 ? 1000 : 3000);
        const closed = dialog.closed;
        const answer = await retrieve(subject);
        if (answer.document) intent = answer.document;
        if (intent.status !== "requires_action") return outcome(subject, intent);
        if (closed) break;
        await later(100);
      }
    } finally {
      dialog.remove();
    }
    const message = "The payment was not authenticated: the bank's page was closed. Nothing was charged.";
    const code = subject.noun.object + "_authentication_failure";
    return { error: { type: "card_error", code, message, [subject.noun.object]: intent } };
  }

  async function settle(subject, answer, actions) {
    if (answer.error) return { error: answer.error };
    if (actions && actions.handleActions === false) return { [subject.noun.result]: answer.document };
    return challenge(subject, answer.document);
  }

  // Confirms with the card of an element, a token, or the id of a payment method.
  async function confirm(secret, data, actions) {
    const subject = subjectOf(secret);
    const { payment_method: method, return_url: _, save_payment_method: __, ...rest } = data || {};
    // The bank sends the payer back to this page inside the dialog, and never to the shop's.
    const params = {
      ...rest,
      client_secret: secret,
      use_stripe_sdk: true,
      return_url: BASE + "/js/v1/returned",
    };
    const path = `/v1/${subject.noun.path}/${subject.id}/confirm`;
    let answer;
    if (method instanceof CardElement || (method && method.card instanceof CardElement)) {
      const { card = method, ...facts } = method instanceof CardElement ? {} : method;
      params.payment_method_data = { ...params.payment_method_data, ...facts, type: "card" };
      answer = await card._ask("confirm", { ...subject, noun: subject.noun.path, body: params });
    } else {
      if (typeof method === "string") params.payment_method = method;
      else if (method) params.payment_method_data = { ...method, type: method.type || "card" };
      answer = await callApi(BASE, key, "POST", path, params);
    }
    return settle(subject, answer, actions);
  }

  // Confirms with the card of `elements`, and leads the payer to `return_url` unless told otherwise.
  async function confirmElements({ elements, clientSecret, confirmParams, redirect }) {
    const { return_url: back, payment_method: known, ...params } = confirmParams || {};
    const secret = clientSecret || (elements && elements._options.clientSecret);
    const method = known || (elements && elements.getElement("card"));
    if (!method) throw misuse("Give `elements` with a card that is mounted, or `confirmParams.payment_method`.");
    if (redirect !== "if_required" && !back) {
      throw misuse("Give `confirmParams.return_url`, or redirect: 'if_required' to stay on the page.");
    }
    const result = await confirm(secret, { ...params, payment_method: method });
    if (result.error || redirect === "if_required") return result;
    const { noun } = subjectOf(secret);
    const intent = result[noun.result];
    const target = new URL(back, location.href);
    target.searchParams.set(noun.object, intent.id);
    target.searchParams.set(noun.object + "_client_secret", secret);
    const paid = intent.status === "succeeded" || intent.status === "requires_capture";
    target.searchParams.set("redirect_status", paid ? "succeeded" : "pending");
    location.assign(target.href);
    return new Promise(() => {});
  }

  async function look(secret) {
    const subject = subjectOf(secret);
    const answer = await retrieve(subject);
    return answer.error ? { error: answer.error } : { [subject.noun.result]: answer.document };
  }

  async function handleNextAction(given) {
    const subject = subjectOf(typeof given === "string" ? given : (given || {}).clientSecret);
    return settle(subject, await retrieve(subject));
  }

  async function createToken(card, data) {
    if (!(card instanceof CardElement)) throw misuse("createToken takes the card element.");
    const answer = await card._ask("token", { body: { card: { ...data } } });
    return answer.error ? { error: answer.error } : { token: answer.document };
  }

  async function createPaymentMethod(given, old, more) {
    // The older form was createPaymentMethod("card", element, data).
    const { card, elements, params, ...facts } = typeof given === "string" ? { ...more, card: old } : given || {};
    const element = card || (elements && elements.getElement("card"));
    const body = { ...facts, ...params, type: "card" };
    let answer;
    if (element instanceof CardElement) answer = await element._ask("method", { body });
    else if (element && element.token) answer = await callApi(BASE, key, "POST", "/v1/payment_methods", { ...body, card: element });
    else throw misuse("createPaymentMethod takes {type: 'card', card: element}.");
    return answer.error ? { error: answer.error } : { paymentMethod: answer.document };
  }

  function sessionOf(given) {
    const secret = (given || {}).customerSessionClientSecret;
    if (!secret) throw misuse("Give `customerSessionClientSecret`, which your server made at /v1/customer_sessions.");
    return { customer_session_client_secret: secret };
  }

  // The saved payment methods that a customer session lets the page show, and their removal.
  async function savedPaymentMethods(given) {
    const answer = await callApi(BASE, key, "GET", "/v1/payment_methods?" + new URLSearchParams(sessionOf(given)));
    return answer.error ? { error: answer.error } : { paymentMethods: answer.document.data };
  }

  async function detachPaymentMethod(id, given) {
    const answer = await callApi(BASE, key, "POST", `/v1/payment_methods/${id}/detach`, sessionOf(given));
    return answer.error ? { error: answer.error } : { paymentMethod: answer.document };
  }

  return {
    elements(given) {
      const group = { ...given };
      let made = null;
      return {
        _options: group,
        create(type, own) {
          if (type !== "card") throw misuse("tillway.js has the element 'card', and no '" + type + "'.");
          made = new CardElement(key, { locale: group.locale || locale, ...own });
          return made;
        },
        getElement: (type) => (type === "card" || type === CardElement ? made : null),
        update: (changed) => void Object.assign(group, changed),
        submit: async () => ({}),
      };
    },
    createToken,
    createPaymentMethod,
    confirmCardPayment: confirm,
    confirmCardSetup: confirm,
    confirmPayment: confirmElements,
    confirmSetup: confirmElements,
    handleNextAction,
    handleCardAction: handleNextAction,
    retrievePaymentIntent: look,
    retrieveSetupIntent: look,
    savedPaymentMethods,
    detachPaymentMethod,
    registerAppInfo() {},
  };
}

Tillway.version = 1;
window.Tillway = Tillway;
// A page that loads Stripe's own script too keeps it.
if (!window.Stripe) window.Stripe = Tillway;
