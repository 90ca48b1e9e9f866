// What every page needs beyond HTML: messages beside the work instead of in its place, and drafts that are never lost.
// Every form works without this file.

const find = (selector) => document.querySelector(selector);

// --- Messages ---------------------------------------------------------------------------------------------------

const UNREACHABLE = "The server could not be reached. Nothing is lost: try again when the connection is back.";

function say(message, { isError = true } = {}) {
  const notice = document.createElement("p");
  notice.className = isError ? "notice error" : "notice";
  if (isError) notice.setAttribute("role", "alert");
  notice.textContent = message;
  find("#messages").replaceChildren(notice);
}

// Said to those who do not see the screen change.
function announce(message) {
  const announcer = find("#announcer");
  if (announcer) announcer.textContent = message;
}

document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
  if (!ctx?.sourceElement?.matches("[data-poll]")) say(UNREACHABLE);
});

document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
  // A form's or a poll's own address is no page to come back to.
  if (ctx.hx?.redirect?.startsWith("/sign-in")) ctx.hx.redirect = "/sign-in?next=/annotate";
});

document.addEventListener("htmx:before:swap", (event) => {
  const { ctx } = event.detail;
  const isOurs = ctx.hx?.retarget || ctx.text?.includes('id="workspace"');
  if (ctx.response?.status < 400 || isOurs) return;
  // The page of some server in between must not take the place of what somebody is working on.
  event.preventDefault();
  if (!ctx.sourceElement.matches("[data-poll]")) say(UNREACHABLE);
});

// --- Drafts: what is typed and pressed goes to the server within half a second ------------------------------------
// Until the server has it, it is kept in this browser too, and sent again and again.

const SEND_AFTER_MS = 400;
const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
// Refusals that a new sign-in or some time may change; after any other the draft is of no use.
const PASSING = new Set([401, 403, 408, 413, 425, 429]);
const NOT_SENT = ["csrf_token", "form_id"];

const person = document.body.dataset.person;
const draftKey = (id) => `draft:${person}:${id}`;
const unsent = new Map();
let timer = 0;
let underWay = null;
let failures = 0;

function keepHere(id, body) {
  unsent.set(id, body);
  try {
    localStorage.setItem(draftKey(id), body);
  } catch {
    // The browser's storage is full or switched off; the draft still goes to the server.
  }
}

function forget(id) {
  unsent.delete(id);
  localStorage.removeItem(draftKey(id));
}

function forgetAll(isOf = () => true) {
  for (const key of Object.keys(localStorage)) if (key.startsWith("draft:") && isOf(key)) localStorage.removeItem(key);
}

function bodyOf(form) {
  const fields = new URLSearchParams(new FormData(form));
  for (const name of NOT_SENT) fields.delete(name);
  fields.set("kind", form.dataset.kind);
  return fields.toString();
}

function post(id, body, options) {
  const fields = new URLSearchParams(body);
  const token = find('[name="csrf_token"]')?.value ?? "";
  fields.set("csrf_token", token);
  return fetch(`/annotate/drafts/${id}`, { method: "POST", body: fields, headers: { "X-CSRF-Token": token }, ...options });
}

function schedule(ms) {
  if (!timer) timer = setTimeout(send, ms);
}

// One at a time, and what was typed meanwhile afterwards: the last state wins.
async function send() {
  clearTimeout(timer);
  timer = 0;
  if (underWay || !unsent.size) return;
  const [id, body] = unsent.entries().next().value;
  underWay = new AbortController();
  const { signal } = underWay;
  const status = await post(id, body, { signal }).then((answer) => answer.status, () => 0);
  underWay = null;
  const isDone = status > 0 && status < 500 && !PASSING.has(status);
  if (isDone && unsent.get(id) === body) forget(id);
  if (signal.aborted) return;
  failures = isDone ? 0 : failures + 1;
  showSaved();
  if (unsent.size) schedule(isDone ? 0 : RETRY_MS[Math.min(failures, RETRY_MS.length) - 1]);
}

function showSaved() {
  for (const shown of document.querySelectorAll("form[data-draft] [data-saved]")) {
    const isUnsent = unsent.has(shown.closest("form").dataset.draft);
    const words = isUnsent ? (failures ? "Not saved yet" : shown.textContent) : shown.closest("form").dataset.touched ? "Saved" : "";
    if (words === "Not saved yet" && shown.textContent !== words) announce("Not saved yet: the server cannot be reached.");
    shown.textContent = words;
    shown.classList.toggle("unsaved", words === "Not saved yet");
  }
}

// The page may go away at any moment from now on.
function flush() {
  for (const [id, body] of unsent) {
    post(id, body, { keepalive: true }).then((answer) => { if (answer.ok && unsent.get(id) === body) forget(id); }, () => {});
  }
}

function fill(form, body) {
  const fields = new URLSearchParams(body);
  if (form.elements.revision && form.elements.revision.value !== fields.get("revision")) return forget(form.dataset.draft);
  for (const field of form.elements) {
    if (!field.name || [...NOT_SENT, "revision", "objective"].includes(field.name)) continue;
    const value = fields.get(field.name) ?? "";
    if (field.type === "radio" || field.type === "checkbox") field.checked = field.value === value;
    else field.value = value;
  }
  form.dataset.touched = "true";
}

const restored = new WeakSet();

function restore() {
  for (const form of document.querySelectorAll("form[data-draft]")) {
    const body = unsent.get(form.dataset.draft);
    if (body && !restored.has(form)) fill(form, body);
    restored.add(form);
  }
  showSaved();
  if (unsent.size && !underWay) schedule(0);
}

document.addEventListener("input", ({ target }) => {
  const form = target.form;
  if (!form?.dataset.draft) return;
  form.dataset.touched = "true";
  keepHere(form.dataset.draft, bodyOf(form));
  schedule(SEND_AFTER_MS);
});

document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
  const id = ctx.sourceElement.dataset?.draft;
  if (!id) return;
  // The form itself is on its way: its draft would only come late.
  clearTimeout(timer);
  timer = 0;
  underWay?.abort();
});

document.addEventListener("htmx:finally:request", ({ detail: { ctx } }) => {
  const { draft, ends } = ctx.sourceElement.dataset ?? {};
  // A form that was replaced by the next screen is known by the request that it made.
  const id = draft ?? ends ?? ctx.draft;
  if (id && ctx.response?.status < 400) forget(id);
  if (unsent.size) schedule(0);
});

document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
  const { draft, ends } = ctx.sourceElement.dataset ?? {};
  ctx.draft = draft ?? ends;
});

document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") flush(); });
window.addEventListener("pagehide", flush);
window.addEventListener("online", () => { failures = 0; send(); });

// Nothing that somebody wrote stays behind for the next person at this computer.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.getAttribute("action") !== "/sign-out") return;
  if (unsent.size && !form.dataset.isFlushed) {
    event.preventDefault();
    form.dataset.isFlushed = "true";
    const all = Promise.allSettled([...unsent].map(([id, body]) => post(id, body)));
    await Promise.race([all, new Promise((resolve) => setTimeout(resolve, 2000))]);
  }
  unsent.clear();
  forgetAll();
  if (event.defaultPrevented) form.submit();
});

if (person) {
  forgetAll((key) => !key.startsWith(draftKey("")));
  for (const key of Object.keys(localStorage)) {
    if (key.startsWith(draftKey(""))) unsent.set(key.slice(draftKey("").length), localStorage.getItem(key));
  }
}
restore();

// A link or token that is shown once is selected with one click.
document.addEventListener("focusin", ({ target }) => {
  if (target.matches("input.copy")) target.select();
});
