/** The page of `ffavatar serve`: which part is shown, and what they tell each other. */

import { Api, ApiError, OfflineError, type About, type AvatarNews } from "./api.js";
import { isLocal } from "./consent.js";
import { alertBar, ask, button, hideAlert, make } from "./dom.js";
import { Home } from "./home.js";
import { History } from "./history.js";
import { Maker } from "./maker.js";
import { Studio } from "./studio.js";

const RETRY_MS = 2000;

class App {
  private readonly main = document.getElementById("main") as HTMLElement;
  private readonly api = new Api((now) => (now ? this.backOnline() : this.offline()));
  private readonly maker: Maker;
  private about: About | undefined;
  private home: Home | undefined;
  private list: History | undefined;
  private studio: Studio | undefined;
  private polling = 0;
  private turn = 0;
  /** Photos of the job under way, and of avatars made since the page was opened. */
  private ordered: readonly string[] = [];
  private readonly photosOf = new Map<string, readonly string[]>();

  constructor() {
    this.maker = new Maker(this.api, {
      news: (news) => this.news(news),
      changed: () => {
        this.home?.changed();
        this.studio?.changed();
      },
      ended: (avatar) => this.ended(avatar),
    });
  }

  async start(): Promise<void> {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) history.replaceState(null, "", `${location.pathname}#/`); // not kept where others may look
    addEventListener("hashchange", () => void this.route());
    document.querySelector(".skip")?.addEventListener("click", (event) => {
      event.preventDefault(); // its address is not a page of this application
      this.main.focus();
    });
    document.addEventListener("paste", (event) => this.paste(event));
    this.acceptDrops();
    await this.connect(given);
  }

  /** Until the server tells what it is. */
  private async connect(token: string | null): Promise<void> {
    try {
      if (token) await this.api.signIn(token);
      else await this.api.signInAgain();
      this.about = await this.api.about();
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return this.askForToken();
      if (error instanceof ApiError) alertBar("start", error.message, button("Try again", "plain", () => location.reload()));
      this.main.replaceChildren(make("p", { class: "lead waiting" }, "Waiting for the server…"));
      return;
    }
    hideAlert("start");
    const where = document.getElementById("where");
    if (where) where.textContent = `${isLocal() ? "On this computer" : location.hostname} · ${deviceText(this.about.device)}`;
    await this.maker.resume();
    await this.route();
  }

  private async askForToken(): Promise<void> {
    const input = make("input", { type: "password", autocomplete: "off", required: "", autofocus: "" });
    const wrong = this.api.hasToken;
    const text = wrong ? "The token was not accepted." : "This server asks for a token.";
    this.main.replaceChildren(make("p", { class: "lead waiting" }, text));
    await ask(
      "Token",
      [make("p", {}, `${text} It is the end of the address that `, make("code", {}, "ffavatar serve"), " printed when it started."), make("label", { class: "field" }, "Token", input)],
      [{ value: "token", label: "Continue", look: "main" }],
    );
    if (input.value.trim()) await this.connect(input.value.trim());
    else this.main.append(button("Give the token", "main", () => void this.askForToken()));
  }

  private async route(): Promise<void> {
    const { about } = this;
    if (!about) return;
    const turn = ++this.turn;
    const [page, id] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    if (page === "avatar" && id) {
      if (this.studio?.id !== id) await this.openStudio(about, id, turn);
    } else if (page === "avatars") {
      this.list = new History(this.api, make("h1", { tabindex: "-1" }, "Your avatars"));
      this.show(this.list.root, "Your avatars");
      void this.list.refresh();
    } else {
      this.home ??= new Home(this.api, about, this.maker, (photos) => (this.ordered = photos));
      this.show(this.home.root, "New avatar");
      this.home.shown();
    }
    for (const link of document.querySelectorAll<HTMLAnchorElement>(".top nav a"))
      if (link.hash === (page === "avatar" || page === "avatars" ? "#/avatars" : "#/")) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
  }

  private async openStudio(about: About, id: string, turn: number): Promise<void> {
    try {
      const avatar = await this.api.avatar(id);
      if (turn !== this.turn) return;
      const gone = (): void => void (location.hash = "#/avatars");
      const studio = new Studio(this.api, about, this.maker, avatar, this.photosOf.get(id) ?? [], gone);
      this.show(studio.root, avatar.name);
      this.studio = studio;
    } catch (error) {
      if (turn !== this.turn) return;
      const title = error instanceof OfflineError ? "No answer" : "Not there";
      this.show(make("div", { class: "lost" }, make("h1", { tabindex: "-1" }, title), make("p", {}, (error as Error).message), make("a", { href: "#/avatars" }, "Your avatars")), title);
    }
  }

  private show(root: HTMLElement, title: string): void {
    this.studio?.leave();
    this.studio = undefined;
    const first = !this.main.childElementCount;
    this.main.replaceChildren(root);
    document.title = `${title} · FFAvatar`;
    scrollTo(0, 0);
    if (!first) root.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
  }

  /** A version of the avatar that is being made is there. */
  private news(news: AvatarNews): void {
    if (!this.photosOf.has(news.avatar)) this.photosOf.set(news.avatar, this.ordered);
    if (this.studio?.id === news.avatar) this.studio.news(news);
    else if (this.home?.root.isConnected && !this.opened.has(news.avatar)) {
      this.opened.add(news.avatar);
      location.hash = `#/avatar/${encodeURIComponent(news.avatar)}`;
    }
    this.home?.changed();
    this.studio?.changed();
  }
  /** Avatars that the page has gone to by itself: it does so once. */
  private readonly opened = new Set<string>();

  private ended(avatar: string | undefined): void {
    if (avatar && this.studio?.id === avatar) void this.studio.reread();
    else if (avatar && this.home?.root.isConnected && !this.opened.has(avatar)) {
      this.opened.add(avatar);
      if (!this.photosOf.has(avatar)) this.photosOf.set(avatar, this.ordered);
      location.hash = `#/avatar/${encodeURIComponent(avatar)}`;
    } else this.renewLists();
  }

  private renewLists(): void {
    if (this.home?.root.isConnected) this.home.shown();
    if (this.list?.root.isConnected) void this.list.refresh();
  }

  private offline(): void {
    if (this.polling) return;
    alertBar("offline", "The server does not answer. Check that “ffavatar serve” is still running; this page goes on by itself when it does.");
    this.polling = window.setInterval(() => {
      void this.api.alive().then((alive) => alive && this.backOnline());
    }, RETRY_MS);
  }

  private backOnline(): void {
    if (!this.polling) return;
    clearInterval(this.polling);
    this.polling = 0;
    hideAlert("offline");
    if (!this.about) void this.connect(null);
    else if (this.main.querySelector(":scope > .lost")) void this.route();
    else this.renewLists();
  }

  /** Photos pasted anywhere on the first page. */
  private paste(event: ClipboardEvent): void {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || !this.home?.root.isConnected || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    void this.home.photos.add(files);
  }

  /** Photos dropped anywhere on the first page; elsewhere a dropped file must not replace the page. */
  private acceptDrops(): void {
    const photos = (): Home["photos"] | undefined => (this.home?.root.isConnected ? this.home.photos : undefined);
    addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      photos()?.highlight(true);
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) photos()?.highlight(false);
    });
    addEventListener("drop", (event) => {
      if (event.defaultPrevented || !event.dataTransfer?.files.length) return;
      event.preventDefault();
      photos()?.highlight(false);
      void photos()?.add([...(event.dataTransfer?.files ?? [])]);
    });
  }
}

/** "cpu" -> "CPU", "cuda:1" -> "GPU". */
function deviceText(device: string): string {
  if (device === "auto") return "best device";
  return device === "cpu" ? "CPU" : /^(cuda|mps)/.test(device) ? "GPU" : device;
}

void new App().start();
