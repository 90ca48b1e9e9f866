// The workspace beyond HTML: the keyboard, the views of a response, the tray, and where the focus goes.

// --- Screens: one replaces the other, and the focus is taken from nobody ------------------------------------------

const WIDE = matchMedia("(width >= 64rem)");
let screen = find("#workspace");
let kept = null;

document.addEventListener("htmx:before:swap", ({ detail: { ctx } }) => {
  const source = ctx.sourceElement;
  if (source.id === "tray" || source.id === "progress") {
    kept = {
      link: document.activeElement?.closest("#tray a")?.getAttribute("href"),
      growing: document.activeElement?.dataset.growing,
      scrolled: [...document.querySelectorAll("#progress .response")].map((response) => response.scrollTop),
      states: trayStates(),
    };
  }
});

document.addEventListener("htmx:after:swap", () => {
  if (find("#workspace") !== screen) {
    screen = find("#workspace");
    find("#messages").replaceChildren();
    restore();
    settle();
    if (document.activeElement === document.body) screen?.focus();
  } else if (kept) {
    // The tray or the progress alone: whoever was there is there again.
    document.querySelectorAll("#progress .response").forEach((response, index) => { response.scrollTop = kept.scrolled[index] ?? 0; });
    if (kept.link && document.activeElement === document.body) find(`#tray a[href="${CSS.escape(kept.link)}"]`)?.focus();
    if (kept.growing && document.activeElement === document.body) find(`[data-growing="${kept.growing}"]`)?.focus();
    announceTray(kept.states);
  }
  kept = null;
});

// What a new screen needs once.
function settle() {
  const notice = find(".guideline-notice[data-guideline]");
  const isFirstRead = notice?.dataset.guideline === "new" && WIDE.matches;
  if (isFirstRead || localStorage.getItem("guideline") === "open") find("#guideline")?.showPopover();
  const together = find('[data-action="together"]');
  together?.setAttribute("aria-pressed", String(localStorage.getItem("scroll") === "together"));
  const keys = find('[data-action="shortcuts"]');
  if (keys) keys.checked = localStorage.getItem("shortcuts") !== "off";
  showEdit();
}

document.addEventListener("toggle", ({ target, newState }) => {
  if (target.id === "guideline" && target.isConnected) localStorage.setItem("guideline", newState);
  if (target.id === "edit" && newState === "open") openEdit();
}, true);

document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
  if (ctx.sourceElement.dataset?.action !== "have-read" || ctx.response.status >= 400) return;
  find("#guideline")?.hidePopover();
  find("details.guideline")?.removeAttribute("open");
  for (const notice of document.querySelectorAll(".guideline-notice")) notice.remove();
  if (document.activeElement === document.body) find("#workspace").focus();
});

// A form that leaves the screen as it is: only its thanks are shown, and nobody's place in a text is lost.
document.addEventListener("htmx:before:swap", (event) => {
  const { ctx } = event.detail;
  if (!ctx.sourceElement.matches("[data-stays]") || ctx.response.status >= 400) return;
  event.preventDefault();
  const notice = new DOMParser().parseFromString(ctx.text, "text/html").querySelector("#notice");
  say(notice?.textContent ?? "Thank you, noted.", { isError: false });
  ctx.sourceElement.hidePopover();
  ctx.sourceElement.reset();
});

// --- The tray -----------------------------------------------------------------------------------------------------

function trayStates() {
  return new Map([...document.querySelectorAll("#tray [data-state]")].map((link) => [link.getAttribute("href"), link.dataset.state]));
}

function announceTray(before) {
  for (const link of document.querySelectorAll("#tray [data-state]")) {
    const { state } = link.dataset;
    if (["ready", "failed"].includes(state) && before.get(link.getAttribute("href")) !== state) {
      announce(`${link.querySelector(".state").textContent}: ${link.querySelector(".excerpt").textContent}`);
    }
  }
}

// --- Views of the two responses: as written for reading, plain, or with what only one of them says ----------------

const responses = () => [...document.querySelectorAll("[data-response]")];

function viewOf(response, view) {
  if (view === "plain" && !response.querySelector(".raw")) {
    const raw = document.createElement("pre");
    raw.className = "plain raw";
    raw.dir = "auto";
    raw.textContent = textOf(response);
    response.append(raw);
  }
  return response.querySelector({ shown: ".shown", plain: ".raw", difference: ".difference" }[view]);
}

const textOf = (response) => response.querySelector("[data-text]").content.textContent;

function show(view) {
  for (const response of responses()) {
    const wanted = viewOf(response, view);
    for (const text of response.querySelectorAll(".shown, .raw, .difference")) text.hidden = text !== wanted;
  }
  find('[data-action="plain"]').setAttribute("aria-pressed", String(view === "plain"));
  find('[data-action="difference"] button').setAttribute("aria-pressed", String(view === "difference"));
}

async function fetchDifference(form) {
  const headers = { "HX-Request": "true", "HX-Request-Type": "partial" };
  const answer = await fetch(form.action, { headers }).catch(() => null);
  if (!answer?.ok) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const response of responses()) response.append(page.querySelector(`[data-side="${response.dataset.side}"] .difference`));
  return true;
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.dataset.action !== "difference") return;
  event.preventDefault();
  const isPressed = form.querySelector("button").getAttribute("aria-pressed") === "true";
  if (!isPressed && !find(".response .difference") && !(await fetchDifference(form))) return say(UNREACHABLE);
  if (form.isConnected) show(isPressed ? "shown" : "difference");
});

// Both scroll by the same share of their length, however different these are.
const moved = new WeakMap();

document.addEventListener("scroll", ({ target }) => {
  if (!target.dataset?.response || localStorage.getItem("scroll") !== "together") return;
  if (Math.abs((moved.get(target) ?? -9) - target.scrollTop) < 2) return moved.delete(target);
  const share = target.scrollTop / Math.max(1, target.scrollHeight - target.clientHeight);
  for (const other of responses()) {
    if (other === target) continue;
    const before = other.scrollTop;
    other.scrollTop = share * (other.scrollHeight - other.clientHeight);
    // Its own scrolling is not to move the first one again.
    if (other.scrollTop !== before) moved.set(other, other.scrollTop);
  }
}, true);

// --- Improving the chosen response --------------------------------------------------------------------------------

const chosen = () => find(`[data-response][data-side="${find(".points :checked")?.dataset.side}"]`);

function setEdit(text, responseId) {
  const { edited_text: field, edited_of: of } = find("form.bar").elements;
  field.value = text;
  of.value = responseId;
}

// As if it had been typed: it is a draft now.
function changeEdit(text, responseId) {
  setEdit(text, responseId);
  find('[name="edited_text"]').dispatchEvent(new Event("input", { bubbles: true }));
}

function openEdit() {
  const { edited_text: text, edited_of: of } = find("form.bar").elements;
  const response = chosen();
  const isOther = response && text.value && of.value && of.value !== response.dataset.response;
  find("[data-edit-hint]").textContent = !response
    ? "Choose the better response first."
    : isOther
      ? `This began as the other response, but you chose ${response.dataset.side.toUpperCase()} now. Start again, or change the choice.`
      : "Change what should be better. Your version is recorded as better than both.";
  find("[data-edit-label]").textContent = response ? `Your version of ${response.dataset.side.toUpperCase()}` : "Your version";
  text.disabled = !response;
  if (response && !text.value) setEdit(textOf(response), response.dataset.response);
}

// An edit that changes nothing is none.
function dropUnchangedEdit() {
  const form = find("form.bar");
  const text = form?.elements.edited_text;
  const source = text?.value && responses().find((response) => response.dataset.response === form.elements.edited_of.value);
  if (source && textOf(source).trim() === text.value.trim()) changeEdit("", "");
}

document.addEventListener("submit", ({ target }) => { if (target.matches("form.bar")) dropUnchangedEdit(); }, true);

function showEdit() {
  const text = find('[name="edited_text"]');
  const button = find('[data-action="edit"]');
  if (!text || !button) return;
  button.classList.toggle("used", Boolean(text.value));
  button.textContent = text.value ? "Improved" : "Improve";
}

document.addEventListener("toggle", ({ target, newState }) => {
  if (target.id === "edit" && newState === "closed" && target.isConnected) { dropUnchangedEdit(); showEdit(); }
}, true);

// --- Buttons ------------------------------------------------------------------------------------------------------

const ACTIONS = {
  plain: (button) => show(button.getAttribute("aria-pressed") === "true" ? "shown" : "plain"),
  together: (button) => {
    const isTogether = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isTogether));
    localStorage.setItem("scroll", isTogether ? "together" : "apart");
  },
  "edit-anew": () => { const response = chosen(); if (response) changeEdit(textOf(response), response.dataset.response); openEdit(); },
  "edit-none": () => { changeEdit("", ""); find("#edit").hidePopover(); },
};

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-action]");
  if (button) ACTIONS[button.dataset.action]?.(button);
});

document.addEventListener("change", ({ target }) => {
  if (target.matches('[data-action="shortcuts"]')) localStorage.setItem("shortcuts", target.checked ? "on" : "off");
});

// --- The keyboard -------------------------------------------------------------------------------------------------

const KEYS = {
  s: '[popovertarget="skip"]', f: '[popovertarget="flag"]', p: '[data-action="plain"]', d: '[data-action="difference"] button',
  t: '[data-action="together"]', g: '[popovertarget="guideline"]', n: '[data-action="new"], .meanwhile .button', i: '[data-action="edit"]',
  y: '[data-key="y"]', "?": '[popovertarget="keys"]',
};

function press(control) {
  if (!control) return false;
  control.click();
  // Radios keep the focus, so that the arrow keys and Enter go on from there.
  if (control.type === "radio") control.focus();
  return true;
}

// A and B wait for a digit: the quality of that response.
function arm(side) {
  for (const group of document.querySelectorAll(".quality")) group.classList.toggle("armed", group.dataset.quality === side);
  return Boolean(find(".quality.armed"));
}

function inWorkspace(key) {
  const armed = find(".quality.armed");
  arm("");
  if (armed && /^[1-7]$/.test(key)) return press(armed.querySelector(`[value="${key}"]`));
  if (key === "a" || key === "b") return arm(key);
  if (key === "y" && find("#rationale")) { find("#rationale").focus(); return true; }
  return press(find(KEYS[key] ?? `.bar input[data-key="${CSS.escape(key)}"]`));
}

function inDialog(dialog, key) {
  if (key === "?") return dialog.id === "keys" && press(find(KEYS["?"]));
  return /^[1-9]$/.test(key) && press(dialog.querySelectorAll("input[type=radio]")[Number(key) - 1]);
}

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.altKey || event.isComposing || event.defaultPrevented || !find("#workspace")) return;
  if (key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    const form = target.form ?? find("form.bar");
    form?.requestSubmit();
    return;
  }
  const isTyping = target.matches("textarea, select, input:not([type=radio], [type=checkbox])");
  if (isTyping || event.ctrlKey || event.metaKey) return;
  const dialog = find(".dialog:popover-open");
  if (key === "Enter") {
    if (!dialog && !target.closest("a, button, summary, form") && press(find('[data-action="submit"]'))) event.preventDefault();
    return;
  }
  const pressed = key.toLowerCase();
  if (localStorage.getItem("shortcuts") === "off" && pressed !== "?") return;
  if (dialog ? inDialog(dialog, pressed) : inWorkspace(pressed)) event.preventDefault();
});

settle();
