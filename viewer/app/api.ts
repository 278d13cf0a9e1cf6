/** The server's HTTP interface (docs/serve.md), as this page uses it. */

export interface About {
  readonly version: string;
  readonly device: string;
  readonly limits: {
    readonly photos: number;
    readonly photo_bytes: number;
    readonly photo_pixels: number;
    readonly film_bytes: number;
    readonly film_seconds: number;
    readonly queue: number;
  };
  readonly personalize: boolean;
  readonly webcam: boolean;
  readonly heic: boolean;
}

export interface Photo {
  readonly id: string;
  readonly name: string;
  readonly kept: boolean;
  readonly reason: string | null;
  readonly width: number;
  readonly height: number;
  readonly faces: number;
  readonly crop: string | null;
  readonly matte: string | null;
}

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";
export type Files = Readonly<Record<string, string>>;

export interface Job {
  readonly id: string;
  readonly kind: "reconstruct" | "personalize" | "drive" | "export";
  readonly state: JobState;
  readonly position: number | null;
  readonly stage: string | null;
  readonly done: number;
  readonly total: number;
  readonly seconds_left: number | null;
  readonly error: string | null;
  readonly avatar: string | null;
  readonly files: Files;
  /** Sentences on what was done, such as photos that were left out. */
  readonly notes?: readonly string[];
}

export interface Avatar {
  readonly id: string;
  readonly name: string;
  readonly created: string;
  readonly version: number;
  readonly gaussians: number;
  readonly personalized: boolean;
  /** Why the last refinement did not come to its end. */
  readonly note?: string | null;
  readonly thumbnail: string;
  readonly container: string;
  readonly bytes: number;
  readonly files: Files;
}

/** What `event: avatar` of a job says. */
export interface AvatarNews {
  readonly avatar: string;
  readonly version: number;
  readonly url: string;
}

export interface Film {
  readonly id: string;
  readonly name: string;
  readonly seconds: number;
}

export type JobOrder =
  | { readonly kind: "reconstruct"; readonly photos: readonly string[]; readonly name?: string; readonly personalize: boolean; readonly look?: string }
  | { readonly kind: "personalize"; readonly avatar: string; readonly photos: readonly string[] }
  | { readonly kind: "drive"; readonly avatar: string; readonly film: string; readonly relative: boolean; readonly same_person: boolean }
  | { readonly kind: "export"; readonly avatar: string; readonly format: string };

/** The server refused: its own sentence, and the seconds after which it may be asked again. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  constructor(
    readonly status: number,
    detail: string,
    readonly retryAfter: number | undefined,
  ) {
    super(detail);
  }
}

/** The server did not answer at all. */
export class OfflineError extends Error {
  override readonly name = "OfflineError";
  constructor() {
    super("The server does not answer. Check that “ffavatar serve” is still running.");
  }
}

const TOKEN = "ffavatar.token";

export class Api {
  private token = sessionStorage.getItem(TOKEN);

  /** `reachable`: called with false when the server stops answering and with true when it does again. */
  constructor(private readonly reachable: (now: boolean) => void) {}

  get hasToken(): boolean {
    return this.token !== null;
  }

  /** Keeps the token for this tab and lets the browser fetch pictures and events with it. Throws ApiError 401 when it is wrong. */
  async signIn(token: string): Promise<void> {
    this.token = token;
    sessionStorage.setItem(TOKEN, token);
    await this.request("/api/session", { method: "POST" }, false);
  }

  /** The same with the token known already; nothing where there is none. */
  async signInAgain(): Promise<void> {
    if (this.token !== null) await this.signIn(this.token);
  }

  about(): Promise<About> {
    return this.request("/api/about");
  }

  /** `face`: which of several, counted from the largest. */
  async addPhoto(file: File, face: number, signal: AbortSignal): Promise<readonly Photo[]> {
    const body = new FormData();
    body.append("files", file, file.name);
    return (await this.request<{ photos: Photo[] }>(`/api/photos?face=${face}`, { method: "POST", body, signal })).photos;
  }

  removePhoto(id: string): Promise<void> {
    return this.request(`/api/photos/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  addFilm(file: File, signal: AbortSignal): Promise<Film> {
    const body = new FormData();
    body.append("file", file, file.name);
    return this.request("/api/films", { method: "POST", body, signal });
  }

  removeFilm(id: string): Promise<void> {
    return this.request(`/api/films/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  /** The same `key` never starts a second job, however often it is sent. */
  createJob(order: JobOrder, key: string): Promise<Job> {
    const headers = { "content-type": "application/json", "idempotency-key": key };
    return this.request("/api/jobs", { method: "POST", body: JSON.stringify(order), headers });
  }

  job(id: string): Promise<Job> {
    return this.request(`/api/jobs/${encodeURIComponent(id)}`);
  }

  cancelJob(id: string): Promise<void> {
    return this.request(`/api/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  eventsOf(id: string): EventSource {
    return new EventSource(`/api/jobs/${encodeURIComponent(id)}/events`);
  }

  async avatars(): Promise<readonly Avatar[]> {
    const { avatars } = await this.request<{ avatars: Avatar[] }>("/api/avatars");
    return avatars.sort((a, b) => b.created.localeCompare(a.created));
  }

  avatar(id: string): Promise<Avatar> {
    return this.request(`/api/avatars/${encodeURIComponent(id)}`);
  }

  renameAvatar(id: string, name: string): Promise<Avatar> {
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ name });
    return this.request(`/api/avatars/${encodeURIComponent(id)}`, { method: "PATCH", body, headers });
  }

  removeAvatar(id: string): Promise<void> {
    return this.request(`/api/avatars/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  /** Whether the server answers at all. */
  async alive(): Promise<boolean> {
    try {
      return (await fetch("/healthz", { cache: "no-store" })).ok;
    } catch {
      return false;
    }
  }

  private async request<T>(path: string, options: RequestInit = {}, again = true): Promise<T> {
    const headers = new Headers(options.headers);
    if (this.token !== null) headers.set("authorization", `Bearer ${this.token}`);
    let response: Response;
    try {
      response = await fetch(path, { ...options, headers, credentials: "same-origin" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      this.reachable(false);
      throw new OfflineError();
    }
    this.reachable(true);
    if (response.ok) return (response.status === 204 ? undefined : await response.json()) as T;
    if (response.status === 401 && again && this.token !== null) {
      await this.signInAgain(); // the server was started anew and knows this browser no longer
      return this.request(path, options, false);
    }
    throw await refusal(response);
  }
}

async function refusal(response: Response): Promise<ApiError> {
  let detail = `The server answered ${response.status} ${response.statusText}`.trim() + ".";
  try {
    const problem = (await response.json()) as { detail?: unknown };
    if (typeof problem.detail === "string" && problem.detail) detail = problem.detail;
  } catch {
    // a proxy's own page: the number says it
  }
  const wait = Number(response.headers.get("retry-after"));
  return new ApiError(response.status, detail, response.headers.has("retry-after") && wait >= 0 ? wait : undefined);
}

/** A name for a request that must not happen twice; also where the page is not served over https. */
export function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
