// Both scripts begin with this: how they call the API.

const API_TRIES_MAX = 3;

// Returns {document} or {error}, and never throws. A repeated try has the same Idempotency-Key, so it does nothing twice.
async function callApi(base, key, method, path, params) {
  const headers = { Authorization: "Bearer " + key };
  if (params) {
    headers["Content-Type"] = "application/json";
    headers["Idempotency-Key"] = Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) =>
      one.toString(16).padStart(2, "0"),
    ).join("");
  }
  for (let tries = 1; ; tries++) {
    try {
      const answer = await fetch(base + path, {
        method,
        headers,
        body: params && JSON.stringify(params),
        credentials: "omit",
        cache: "no-store",
        referrerPolicy: "no-referrer",
      });
      const document = await answer.json();
      return answer.ok ? { document } : { error: document.error };
    } catch (failure) {
      if (tries === API_TRIES_MAX) {
        const message = "The payment server could not be reached. Look at your connection and try again.";
        return { error: { type: "api_connection_error", message } };
      }
      await new Promise((go) => setTimeout(go, 500 * tries));
    }
  }
}
