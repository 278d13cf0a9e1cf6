/** Small makers of elements, and what the page says to screen readers. */

type Attributes = Record<string, string>;

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function button(label: string, look: "main" | "plain" | "quiet" | "danger", act: () => void): HTMLButtonElement {
  const made = make("button", { type: "button", class: look }, label);
  made.addEventListener("click", act);
  return made;
}

const DRAWINGS = {
  add: "M12 5v14M5 12h14",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 10a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 4v11M7 11l5 5l5-5M5 20h14",
  film: "M4 6h16v12H4zM8 6v12M16 6v12M4 12h4M16 12h4",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  pen: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  person: "M12 4a3.5 3.5 0 1 0 .01 0M5 20c0-4.5 3-7 7-7s7 2.5 7 7z",
  photos: "M4 5h16v14H4zM4 16l5-5l4 4l2.5-2.5L20 16M15 8.8a1 1 0 1 0 .01 0",
  wait: "M12 4a8 8 0 1 0 8 8",
} as const;
export type Drawing = keyof typeof DRAWINGS;

/** A 24 x 24 line drawing beside a text that says the same. */
export function icon(name: Drawing): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon", name);
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", DRAWINGS[name]);
  svg.append(line);
  return svg;
}

/** A button with only a drawing; `label` is its name. */
export function iconButton(name: Drawing, label: string, act: () => void): HTMLButtonElement {
  const made = make("button", { type: "button", class: "bare", "aria-label": label, title: label }, icon(name));
  made.addEventListener("click", act);
  return made;
}

function part(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no part #${id}`);
  return found;
}

/** Says a sentence to screen readers, without moving anybody. */
export function announce(sentence: string): void {
  const live = part("live");
  live.textContent = "";
  setTimeout(() => (live.textContent = sentence), 50); // an unchanged text would not be read again
}

/** A bar over the page with a sentence, until `hide`; one for each `kind`. */
export function alertBar(kind: string, sentence: string, ...actions: HTMLElement[]): void {
  hideAlert(kind);
  const close = iconButton("close", "Dismiss", () => hideAlert(kind));
  part("alerts").append(make("div", { class: "alert", "data-kind": kind }, make("p", {}, sentence), ...actions, close));
}

export function hideAlert(kind: string): void {
  part("alerts").querySelector(`[data-kind="${kind}"]`)?.remove();
}

/** A modal dialog; resolves to the value of the button that closed it, "" for Escape. */
export function ask(
  title: string,
  body: readonly (Node | string)[],
  answers: readonly { readonly value: string; readonly label: string; readonly look: "main" | "plain" | "danger" }[],
): Promise<string> {
  // a long text is read from its beginning: without this, a small screen scrolls down to the first button
  const chosen = body.some((part) => part instanceof Element && part.querySelector("[autofocus]"));
  const heading = make("h2", { id: "dialog-title", ...(chosen ? {} : { tabindex: "-1", autofocus: "" }) }, title);
  const form = make("form", { method: "dialog" }, heading, ...body);
  const row = make("div", { class: "answers" });
  for (const { value, label, look } of answers)
    row.append(make("button", { value, class: look, ...(value === "" ? { formnovalidate: "" } : {}) }, label));
  form.append(row);
  const dialog = make("dialog", { "aria-labelledby": "dialog-title" }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    dialog.addEventListener("cancel", () => (dialog.returnValue = ""));
    dialog.showModal(); // the browser keeps focus inside and gives it back afterwards
  });
}

/** Sentences of the server; nothing where there are none. */
export function notesList(notes: readonly string[]): HTMLElement[] {
  return notes.length ? [make("ul", { class: "notes hint" }, ...notes.map((note) => make("li", {}, note)))] : [];
}

/** "4.2 MB", of 2^20 bytes: the server's limits are round numbers of these. */
export function bytesText(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  const [unit, name] = bytes < 2 ** 20 ? [2 ** 10, "KB"] : bytes < 2 ** 30 ? [2 ** 20, "MB"] : [2 ** 30, "GB"];
  return `${(bytes / unit).toLocaleString("en", { maximumSignificantDigits: 3 })} ${name}`;
}

/** "about 40 seconds left". */
export function leftText(seconds: number): string {
  if (seconds < 1.5) return "a moment left";
  if (seconds < 90) return `about ${Math.max(2, Math.round(seconds / 5) * 5 || Math.round(seconds))} seconds left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `about ${minutes} minutes left` : `about ${Math.round(seconds / 3600)} hours left`;
}

/** "25 Nov 2026", or with `time` "25 Nov 2026, 14:05", as the person's language says it. */
export function dateText(iso: string, time = false): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  return date.toLocaleString(undefined, { dateStyle: "medium", ...(time ? { timeStyle: "short" } : {}) });
}
