// The dashboard's one module. Every page works without it; this adds speed and comfort.
const $ = (s, r = document) => r.querySelector(s);
const $$ = (s, r = document) => [...r.querySelectorAll(s)];
const say = (text) => { const s = $("#say"); if (s) { s.textContent = ""; requestAnimationFrame(() => (s.textContent = text)); } };
const typing = (t) => t.closest?.("input, textarea, select, [contenteditable]");
const root = document.documentElement;

// theme: the server reads the cookie and sets data-theme, so that nothing flashes; its form works without this
const setTheme = (value) => {
  if (value) root.dataset.theme = value; else delete root.dataset.theme;
  document.cookie = `theme=${value}; Path=/; Max-Age=${value ? 31536000 : 0}; SameSite=Lax`;
};

// copying
async function copy(button, text) {
  try { await navigator.clipboard.writeText(text); } catch { return say("Copying is not allowed here"); }
  button.classList.add("done");
  say(`Copied ${text.length < 60 ? text : ""}`);
  setTimeout(() => button.classList.remove("done"), 1400);
}

document.addEventListener("click", (e) => {
  const t = e.target.closest("[data-copy], [data-copy-pre], [data-open], [data-close], [data-say], [data-theme-toggle], [data-print]");
  if (!t) return closeOthers(e.target);
  const d = t.dataset;
  if ("copy" in d) return copy(t, d.copy);
  if ("copyPre" in d) return copy(t, $("pre", t.parentElement).textContent);
  if ("open" in d) { const dialog = document.getElementById(d.open); if (dialog) { e.preventDefault(); dialog.showModal(); $("[name=amount]", dialog)?.select(); } return; }
  if ("close" in d) return t.closest("dialog")?.close();
  if ("say" in d) { const was = t.innerHTML; t.textContent = d.say; say(d.say); setTimeout(() => (t.innerHTML = was), 2400); return; }
  if ("print" in d) return print();
  e.preventDefault();
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
});
document.addEventListener("change", (e) => { if ("themeSet" in e.target.dataset) setTheme(e.target.dataset.themeSet); });
const closeOthers = (t) => $$("details.chip[open], details.shop[open]").forEach((d) => { if (!d.contains(t)) d.open = false; });
for (const d of $$("dialog")) d.addEventListener("click", (e) => { if (e.target === d) d.close(); });

// a narrow row of tabs shows the one that is open
for (const tab of $$(".tabs [aria-current]")) tab.scrollIntoView({ block: "nearest", inline: "nearest" });

// rows: j, k, x, Enter; selection and the bar that acts on it
// (looked up anew each time: refreshing puts other rows in their place)
const rowsNow = () => $$("[data-rows] tbody tr:not(.day), .split > ol > li, .side-list > ol > li").filter((row) => $("a.go", row));
const rowOn = () => $("[data-rows] tr[data-on], .split li[data-on]");
function move(by) {
  const rows = rowsNow();
  if (!rows.length) return;
  const was = rowOn();
  was?.removeAttribute("data-on");
  const from = was ?? $(".split a.go[aria-current]")?.parentElement;
  const row = rows[Math.max(0, Math.min(rows.length - 1, rows.indexOf(from) + by))];
  row.setAttribute("data-on", "");
  $("a.go", row)?.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}
const boxes = () => $$("[data-rows] td.ck input");
const bulk = $("[data-bulk]");
function counted() {
  const every = boxes(), n = every.filter((b) => b.checked).length;
  if (bulk) $("[data-bulk-n]", bulk).textContent = n;
  const all = $("[data-all]");
  if (all) { all.checked = n === every.length && n > 0; all.indeterminate = n > 0 && n < every.length; }
}
document.addEventListener("change", (e) => {
  if (!e.target.closest("[data-rows] .ck")) return;
  if ("all" in e.target.dataset) boxes().forEach((b) => (b.checked = e.target.checked));
  counted();
});

// keys
const base = root.dataset.base;
const GO = { h: "", p: "/payments", c: "/customers", b: "/balance", i: "/doubts", d: "/disputes", n: "/connectors", w: "/developers", a: "/audit" };
let chord = 0;
document.addEventListener("keydown", (e) => {
  const palette = $("#palette");
  if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "k" && palette) { e.preventDefault(); palette.showModal(); $("#pq").select(); return; }
  if (e.ctrlKey || e.metaKey || e.altKey || typing(e.target) || $("dialog[open]")) return;
  if (root.dataset.shortcuts === "off" && e.key !== "Escape") return;
  const k = e.key;
  if (Date.now() - chord < 900 && k in GO) { chord = 0; location.href = base + GO[k]; return; }
  chord = 0;
  if (k === "g") chord = Date.now();
  else if (k === "/") { e.preventDefault(); $("#q")?.focus(); }
  else if (k === "?") $("#help")?.showModal();
  else if (k === "j") move(1);
  else if (k === "k") move(-1);
  else if (k === "x" && rowOn()) { const b = $("td.ck input", rowOn()); if (b) { b.checked = !b.checked; counted(); } }
  else if (k === "r") $("[data-open=refund]")?.click();
  else if (k === "y") $("main .head [data-copy]")?.click();
  else if (k === "u") $("[data-up]")?.click();
  else if (k === "Escape") closeOthers(document.body);
});

// the palette: filter, arrows, Enter; anything that looks like an id is searched for
const pq = $("#pq");
if (pq) {
  const links = $$("#plist a");
  const show = () => {
    const q = pq.value.trim().toLowerCase();
    links.forEach((a) => (a.hidden = q !== "" && !a.textContent.toLowerCase().includes(q)));
    mark(0);
  };
  const seen = () => links.filter((a) => !a.hidden);
  let hit = 0;
  const mark = (i) => { const s = seen(); links.forEach((a) => a.removeAttribute("data-hit")); hit = Math.max(0, Math.min(s.length - 1, i)); s[hit]?.setAttribute("data-hit", ""); s[hit]?.scrollIntoView({ block: "nearest" }); };
  pq.addEventListener("input", show);
  pq.addEventListener("keydown", (e) => {
    if (e.key === "ArrowDown" || e.key === "ArrowUp") { e.preventDefault(); mark(hit + (e.key === "ArrowDown" ? 1 : -1)); }
    if (e.key === "Enter") { e.preventDefault(); const a = seen()[hit]; location.href = a ? a.href : `${base}/search?q=${encodeURIComponent(pq.value)}`; }
  });
  show();
}

// money forms: the preview counts in minor units, as the server does; the server's own preview decides
for (const form of $$("[data-money]")) {
  const { left, balance, cur, decimals, most, sign = -1, scales } = form.dataset;
  const own = scales === undefined ? null : form.elements.currency;  // a currency to choose, with the decimals of all that do not have two
  const uncommon = Object.fromEntries((scales ?? "").split(" ").map((one) => one.split(":")));
  const code = () => (own ? own.value.trim().toUpperCase() : cur);
  const digits = () => +(own ? uncommon[code()] ?? 2 : decimals);
  const fmt = (m) => { const scale = 10 ** digits(); return `${m < 0 ? "−" : ""}${Math.floor(Math.abs(m) / scale).toLocaleString("en-US")}${digits() ? `.${String(Math.abs(m) % scale).padStart(digits(), "0")}` : ""}`; };
  const input = form.elements.amount;
  const put = (k, v) => $$(`[data-p=${k}]`, form).forEach((n) => (n.textContent = v));
  const button = $("button[type=submit]", form);
  // as the server reads it: 1,250.00 and 12,500 have thousands, 20,50 decimals, and 1,250 KWD may mean either
  const plain = (text) => (!/^\d{1,3}(,\d{3})+(\.\d+)?$/.test(text) ? text.replace(",", ".") : digits() === 3 && /^\d+,\d+$/.test(text) ? "" : text.replaceAll(",", ""));
  const changed = () => {
    const m = plain(input.value.replaceAll(" ", "")).match(/^(\d{1,12})(?:\.(\d{1,3}))?$/);
    const tooFine = (m?.[2] ?? "").length > digits();
    const minor = m && !tooFine ? Number(m[1]) * 10 ** digits() + Number((m[2] ?? "").slice(0, digits()).padEnd(digits(), "0")) : 0;
    const wrong = !m || tooFine || minor === 0 ? `Write an amount such as ${fmt(own ? 2000 : +left)}` : minor > +left ? `At most ${fmt(+left)} ${code()} ${most}` : "";
    const err = $(".err", form);
    err.hidden = !wrong; $("span", err).textContent = wrong;
    input.setAttribute("aria-invalid", String(Boolean(wrong)));
    button.disabled = Boolean(wrong);
    for (const n of $$("[data-when-valid]", form)) n.hidden = Boolean(wrong);
    if (wrong) return;
    for (const n of $$("[data-verb]", form)) n.textContent = `${n.dataset.verb} ${fmt(minor)} ${code()}`;
    put("gets", `${fmt(minor)} ${code()}`); put("after", fmt(+balance + sign * minor)); put("left", `${fmt(+left - minor)} ${code()}`); put("btn", `${fmt(minor)} ${code()}`); put("code", code());
  };
  input.addEventListener("input", changed);
  own?.addEventListener("input", () => input.value && changed());
  form.elements.card?.addEventListener("change", (e) => put("card", e.target.selectedOptions[0].text.split(",")[0]));
  form.addEventListener("submit", (e) => {
    if (form.dataset.sent) return e.preventDefault();
    form.dataset.sent = "1";
    form.elements.preview?.remove();
  });
}

// charts: one cursor over all charts of a group, read from the table that stands beside each
for (const chart of $$("[data-chart]")) {
  const group = $$(`[data-chart="${chart.dataset.chart}"]`);
  const plot = $(".plot", chart);
  const clear = () => $$(".cursor, .tip").forEach((n) => n.remove());
  plot.addEventListener("pointerleave", clear);
  plot.addEventListener("pointermove", (e) => {
    const box = plot.getBoundingClientRect();
    const x = Math.max(0, Math.min(1, (e.clientX - box.left) / box.width));
    clear();
    for (const c of group) {
      const p = $(".plot", c); const line = document.createElement("i"); line.className = "cursor"; line.style.left = `${x * 100}%`; p.append(line);
      const cells = $$("tbody tr", c);
      const link = $$("svg a", p);
      const n = cells.length || link.length; const i = Math.round(x * (n - 1));
      const text = cells.length ? [...cells[i].cells].map((t) => t.textContent).filter(Boolean).join("   ") : link[i]?.getAttribute("aria-label");
      if (!text) continue;
      const tip = document.createElement("div"); tip.className = `tip${x > 0.6 ? " flip" : ""}`; tip.style.left = `${x * 100}%`; tip.textContent = text; p.append(tip);
    }
  });
}

// live pages: fetch the page again and change what differs, by key; paused where the tab is hidden or a person says so
const live = $("[data-live]");
const changed = (i) => (i.type === "checkbox" || i.type === "radio" ? i.checked !== i.defaultChecked : i.value !== i.defaultValue);
if (live) {
  const button = $("[data-pause]");
  for (const next of $$("[data-next]")) next.hidden = false;
  let paused = false;
  const tell = () => {
    root.classList.add("stale");
    if ($("#stale")) return;
    const note = document.createElement("div");
    note.id = "stale"; note.className = "note warn"; note.setAttribute("role", "alert");
    note.textContent = `This page could not be refreshed. It stands as of ${root.dataset.at}, and is tried again by itself.`;
    $("#main").prepend(note);
  };
  if (button) { button.hidden = false; button.addEventListener("click", () => { paused = !paused; button.lastChild.textContent = paused ? "Go on refreshing" : "Pause refreshing"; button.setAttribute("aria-pressed", String(paused)); }); }
  setInterval(async () => {
    if (paused || document.hidden || $("dialog[open]")) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const now of $$("[data-key]")) {
        const then = $(`[data-key="${now.dataset.key}"]`, next);
        if (then && then.innerHTML !== now.innerHTML && !now.contains(document.activeElement) && !$$("input", now).some(changed)) { now.replaceWith(then); then.classList.add("new"); }
      }
      root.dataset.at = next.documentElement.dataset.at;
      root.classList.remove("stale");
      $("#stale")?.remove();
    } catch { tell(); }
  }, live.dataset.live * 1000);
}

// passkeys: the server's options come when the button is pressed, and the browser's answer goes into the form
const bytesOf = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const textOf = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const listed = (some) => (some ?? []).map((one) => ({ ...one, id: bytesOf(one.id) }));
async function passkey(form) {
  const answer = await fetch(form.dataset.passkey, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(answer.status);
  const options = await answer.json();
  options.challenge = bytesOf(options.challenge);
  const made = options.user
    ? await navigator.credentials.create({ publicKey: { ...options, user: { ...options.user, id: bytesOf(options.user.id) }, excludeCredentials: listed(options.excludeCredentials) } })
    : await navigator.credentials.get({ publicKey: { ...options, allowCredentials: listed(options.allowCredentials) } });
  const parts = made.response;
  const response = { clientDataJSON: textOf(parts.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) if (parts[name]) response[name] = textOf(parts[name]);
  return JSON.stringify({ id: made.id, rawId: textOf(made.rawId), type: made.type, response, clientExtensionResults: {} });
}
for (const form of window.PublicKeyCredential ? $$("[data-passkey]") : []) {
  form.hidden = false;
  form.addEventListener("submit", async (e) => {
    const field = form.elements.passkey;
    if (field.value) return;
    e.preventDefault();
    try { field.value = await passkey(form); } catch { const told = $(".err", form); told.hidden = false; say(told.textContent); return; }
    form.requestSubmit();
  });
}
