// What HTML alone cannot do: keyboard shortcuts, drafts that survive, errors beside the work instead of in its place.
// Every form works without this file.

const find = (selector) => document.querySelector(selector);

// --- Messages ---------------------------------------------------------------------------------------------------

function say(message) {
  const notice = document.createElement("p");
  notice.className = "notice error";
  notice.setAttribute("role", "alert");
  notice.textContent = message;
  find("#messages").replaceChildren(notice);
}

document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
  const isPoll = ctx?.request?.method === "GET";
  if (!isPoll) say("The server could not be reached. Nothing is lost: try again when the connection is back.");
});

document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
  if (ctx.target !== "#messages" && ctx.response?.status < 400) find("#messages").replaceChildren();
  restore();
  const workspace = find("#workspace");
  if (workspace && !workspace.contains(document.activeElement)) workspace.focus();
});

// --- Drafts: what is typed is kept in this browser until the server has it ----------------------------------------

const draftKey = (field) => `draft:${field.dataset.draft}`;

function restore() {
  for (const field of document.querySelectorAll("[data-draft]")) {
    if (!field.value) field.value = localStorage.getItem(draftKey(field)) ?? "";
  }
  if (localStorage.getItem("guideline") === "open") find("#guideline")?.showPopover();
}

document.addEventListener("input", ({ target }) => {
  if (target.dataset.draft) localStorage.setItem(draftKey(target), target.value);
});

document.addEventListener("htmx:before:swap", ({ detail: { ctx } }) => {
  if (ctx.response?.status >= 400) return;
  for (const field of ctx.sourceElement.querySelectorAll?.("[data-draft]") ?? []) localStorage.removeItem(draftKey(field));
});

// Nothing that somebody wrote stays behind for the next person at this computer.
document.addEventListener("submit", ({ target }) => {
  if (target.getAttribute("action") === "/sign-out") localStorage.clear();
});

document.addEventListener("toggle", ({ target, newState }) => {
  if (target.id === "guideline" && target.isConnected) localStorage.setItem("guideline", newState);
}, true);

// --- The workspace's keyboard -------------------------------------------------------------------------------------

function togglePlainText(button) {
  const isPlain = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(isPlain));
  for (const response of document.querySelectorAll(".response")) {
    const text = response.querySelector(".text");
    if (!text) continue;
    const plain = response.querySelector("pre.plain") ?? text.insertAdjacentElement("afterend", document.createElement("pre"));
    plain.className = "plain";
    plain.dir = "auto";
    plain.textContent = response.querySelector("[data-text]").content.textContent;
    plain.hidden = !isPlain;
    text.hidden = isPlain;
  }
}

function press(selector) {
  const control = find(selector);
  if (!control) return false;
  control.click();
  // Radios keep the focus, so that the arrow keys and Enter go on from there.
  if (control.type === "radio") control.focus();
  return true;
}

const SHORTCUTS = { s: '[popovertarget="skip"]', p: '[data-action="plain"]', g: '[popovertarget="guideline"]', "?": '[popovertarget="keys"]' };

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.altKey || event.isComposing) return;
  if (key === "Enter" && (event.ctrlKey || event.metaKey)) {
    target.form?.requestSubmit();
    return;
  }
  const isTyping = target.matches("textarea, select, input:not([type=radio], [type=checkbox])");
  if (isTyping || event.ctrlKey || event.metaKey || !find("#workspace")) return;
  if (key === "Enter" && !target.closest("a, button, summary, form")) {
    if (press('[data-action="submit"]')) event.preventDefault();
    return;
  }
  const selector = SHORTCUTS[key.toLowerCase()] ?? `.bar [data-key="${CSS.escape(key.toLowerCase())}"]`;
  if (press(selector)) event.preventDefault();
});

document.addEventListener("click", ({ target }) => {
  const button = target.closest('[data-action="plain"]');
  if (button) togglePlainText(button);
});

// A link or token that is shown once is selected with one click.
document.addEventListener("focusin", ({ target }) => {
  if (target.matches("input.copy")) target.select();
});

restore();
