// A stand-in for `ffavatar serve`: its HTTP interface with canned answers, for the tests of its page and for work on it.
//
//   node mock.mjs MATERIAL [PORT]      MATERIAL: a folder made by tests/page_material.py
import { createHash, randomUUID } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const PACKAGE = join(here, "../../src/ffavatar");
const TYPES = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".json": "application/json",
  ".wasm": "application/wasm", ".webp": "image/webp", ".mp4": "video/mp4",
};
const POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; " +
  "connect-src 'self' blob:; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** What each kind of job goes through: stage, steps, and after which step a version of the avatar is there. */
const PLANS = {
  reconstruct: () => [{ stage: "reading photos", steps: 3 }, { stage: "reconstructing", steps: 4 }],
  personalize: () => [{ stage: "personalizing", steps: 20, versions: { 8: 2, 16: 3 } }],
  drive: () => [{ stage: "reading the film", steps: 6 }, { stage: "drawing", steps: 6 }],
  export: () => [{ stage: "writing", steps: 2 }],
};

/**
 * Starts it. `page`, `viewer`: folders of the built files; `vision`: the webcam's files; `token`; `stepMs`: a job's pace.
 * `state` can be changed while it runs: `full`, `fullPhotos` (so many jobs, uploads are refused), `dropAfter` (cut the event stream after so many
 * events, once), `failWith` (jobs fail with this sentence), `hold` (jobs stand still at this stage).
 */
export async function mockServer(material, { page = join(PACKAGE, "serve/page"), viewer = join(PACKAGE, "viewer"), vision, token, stepMs = 120, port = 0 } = {}) {
  const answers = JSON.parse(readFileSync(join(material, "answers.json"), "utf8"));
  const byId = Object.fromEntries(Object.values(answers).flat().map((answer) => [answer.id, answer]));
  const photos = new Map();
  const films = new Map();
  const avatars = new Map();
  const jobs = new Map();
  const keys = new Map();
  const streams = new Set();
  const sessions = new Set();
  const state = { full: 0, fullPhotos: 0, dropAfter: 0, failWith: "", hold: "", heic: true };
  const log = { lastEventIds: [], keys: [], deleted: [], orders: [], authorized: 0 };

  const send = (response, status, body, headers = {}) => {
    const bytes = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    const type = body === undefined ? {} : { "content-type": Buffer.isBuffer(body) ? "application/octet-stream" : "application/json" };
    response.writeHead(status, { "content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache", ...type, ...headers });
    response.end(bytes);
  };
  const refuse = (response, status, detail, headers = {}) =>
    send(response, status, { type: "about:blank", title: "Refused", status, detail }, { "content-type": "application/problem+json", ...headers });
  const file = (response, path, headers = {}) => {
    if (!existsSync(path) || !statSync(path).isFile()) return refuse(response, 404, "There is no such file.");
    return send(response, 200, readFileSync(path), { "content-type": TYPES[extname(path)] ?? "application/octet-stream", ...headers });
  };
  const below = (folder, rest) => join(folder, normalize(`/${rest}`));

  const photoOf = (answer) => ({
    ...answer,
    crop: answer.crop ? `/api/photos/${answer.id}/crop` : null,
    matte: answer.crop ? `/api/photos/${answer.id}/matte` : null,
  });
  const avatarOf = ({ id, name, created, version, files, note = null }) => ({
    id, name, created, version, gaussians: 94210, personalized: version > 1, note, thumbnail: `/api/avatars/${id}/thumbnail`,
    container: `/api/avatars/${id}/container`, bytes: statSync(join(material, "avatar-1.safetensors")).size, files,
  });

  const emit = (job, event, data = job.record) => {
    job.events.push({ id: job.events.length + 1, event, data: JSON.stringify(data) });
    for (const stream of streams) if (stream.job === job) stream.flush();
  };
  const finish = (job, change) => {
    clearTimeout(job.timer);
    Object.assign(job.record, change, { finished: new Date().toISOString(), seconds_left: null });
    emit(job, "end");
  };
  const newAvatar = (name) => {
    const id = randomUUID().slice(0, 12);
    avatars.set(id, { id, name, created: new Date().toISOString(), version: 1, files: {} });
    return id;
  };
  const newVersion = (job, version) => {
    const { record } = job;
    record.avatar ??= newAvatar(job.order.name ?? "Avatar");
    avatars.get(record.avatar).version = version;
    emit(job, "avatar", { avatar: record.avatar, version, url: `/api/avatars/${record.avatar}/container?version=${version}` });
  };
  /** One step after the other, at the pace asked for. */
  const begin = (job) => {
    const { order, record } = job;
    const plan = PLANS[order.kind]();
    if (order.kind === "reconstruct" && order.personalize) plan.push(...PLANS.personalize());
    let at = 0;
    let done = 0;
    record.state = "running";
    const step = () => {
      if (state.failWith) return finish(job, { state: "failed", error: state.failWith });
      const { stage, steps, versions = {} } = plan[at];
      if (state.hold === stage && done === 1) return void (job.timer = setTimeout(step, stepMs));
      Object.assign(record, { stage, done, total: steps, seconds_left: ((steps - done) * stepMs) / 1000 });
      emit(job, "job");
      if (versions[done]) newVersion(job, versions[done]);
      if (++done > steps) {
        done = 0;
        at++;
        if (stage === "reconstructing") newVersion(job, 1);
      }
      if (at < plan.length) job.timer = setTimeout(step, stepMs);
      else finish(job, { state: "done", files: filesOf(job), notes: notesOf(job) });
    };
    step();
  };
  const notesOf = ({ order }) =>
    order.look ? [`Hair and clothes are those of ${photos.get(order.look).name}; of the other ${order.photos.length - 1} only the face is used.`] : [];
  const filesOf = ({ order, record }) => {
    const file = (name) => ({ [name]: `/api/files/${record.id}/${name}` });
    if (order.kind === "export") return file(`avatar.${order.format}`);
    if (order.kind !== "drive") return {};
    const made = { ...file("film.mp4"), ...file("motion.json") };
    Object.assign(avatars.get(order.avatar).files, made);
    return made;
  };

  const follow = (request, response, job) => {
    const last = request.headers["last-event-id"];
    log.lastEventIds.push(last ?? null);
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store", "content-security-policy": POLICY });
    response.write("retry: 300\n\n");
    const stream = {
      job, response, sent: Number(last ?? 0),
      flush() {
        for (const { id, event, data } of job.events.slice(stream.sent)) {
          response.write(`id: ${id}\nevent: ${event}\ndata: ${data}\n\n`);
          stream.sent = id;
          if (event === "end") response.end();
          if (state.dropAfter && --state.dropAfter === 0) return void setTimeout(() => response.destroy(), 20);
        }
      },
    };
    streams.add(stream);
    response.on("close", () => streams.delete(stream));
    stream.flush();
  };

  const routes = [
    ["GET", /^\/$/, (q, r) => file(r, join(page, "index.html"))],
    ["GET", /^\/assets\/(.+)$/, (q, r, m) => file(r, below(page, m[1]))],
    ["GET", /^\/viewer\/(.+)$/, (q, r, m) => file(r, below(viewer, m[1]))],
    ["GET", /^\/webcam\/(.+)$/, (q, r, m) => (vision ? file(r, below(vision, m[1])) : refuse(r, 404, "The webcam's files are not here."))],
    ["GET", /^\/healthz$/, (q, r) => send(r, 200, { status: "ok" })],
    ["POST", /^\/api\/session$/, (q, r) => {
      const session = randomUUID();
      sessions.add(session);
      send(r, 204, undefined, { "set-cookie": `session=${session}; HttpOnly; SameSite=Strict; Path=/` });
    }],
    ["GET", /^\/api\/about$/, (q, r) =>
      send(r, 200, {
        version: "0.0.0", device: "cpu", personalize: true, webcam: vision !== undefined, heic: state.heic,
        limits: { photos: 6, photo_bytes: 2 * 2 ** 20, photo_pixels: 4e7, film_bytes: 5 * 2 ** 20, film_seconds: 60, queue: 4 },
      })],
    ["POST", /^\/api\/photos$/, (q, r, m, body) => {
      if (state.fullPhotos > 0) {
        state.fullPhotos--;
        return refuse(r, 503, "The room for uploads is full; try again in 1 s.", { "retry-after": "1" });
      }
      const face = Number(new URL(q.url, "http://x").searchParams.get("face") ?? 0);
      const found = partsOf(q, body).map(({ name, data }) => {
        const digest = createHash("sha256").update(data).digest("hex");
        const answer = answers[digest]?.[face] ?? { id: `${digest.slice(0, 16)}-0`, kept: false, reason: `${name} is not a photo this program can read: save it again as JPEG or PNG.`, width: 0, height: 0, faces: 0 };
        const photo = photoOf({ ...answer, name });
        photos.set(photo.id, photo);
        return photo;
      });
      return setTimeout(() => send(r, 200, { photos: found }), 2 * stepMs);
    }],
    ["GET", /^\/api\/photos\/([\w-]+)\/(crop|matte)$/, (q, r, m) => (byId[m[1]] ? file(r, join(material, "crops", `${m[1]}-${m[2]}.webp`)) : refuse(r, 404, "No such photo."))],
    ["DELETE", /^\/api\/photos\/([\w-]+)$/, (q, r, m) => {
      photos.delete(m[1]);
      log.deleted.push(m[1]);
      send(r, 204);
    }],
    ["POST", /^\/api\/films$/, (q, r, m, body) => {
      const [{ name, data }] = partsOf(q, body);
      if (!data.subarray(4, 8).equals(Buffer.from("ftyp"))) return refuse(r, 422, `${name} is not a film this program can read: save it again as mp4.`);
      const id = randomUUID();
      films.set(id, name);
      return send(r, 200, { id, name, seconds: 2, width: 128, height: 128, fps: 30 });
    }],
    ["DELETE", /^\/api\/films\/([\w-]+)$/, (q, r, m) => {
      films.delete(m[1]);
      log.deleted.push(m[1]);
      send(r, 204);
    }],
    ["POST", /^\/api\/jobs$/, (q, r, m, body) => {
      const key = q.headers["idempotency-key"];
      log.keys.push(key);
      if (state.full > 0) {
        state.full--;
        return refuse(r, 503, "The queue is full; try again in 2 s.", { "retry-after": "2" });
      }
      if (keys.has(key)) return send(r, 200, keys.get(key).record);
      const order = JSON.parse(body.toString());
      log.orders.push(order);
      const known = order.photos?.every((id) => photos.has(id)) ?? true;
      if (order.look && !order.photos.includes(order.look)) return refuse(r, 422, "look: it is none of the job's photos.");
      if (!known || (order.avatar && !avatars.has(order.avatar))) return refuse(r, 404, "A photo or avatar is not here any more; upload it anew.");
      const record = {
        id: randomUUID(), kind: order.kind, state: "queued", position: 1, stage: null, done: 0, total: 0, seconds_left: null,
        error: null, avatar: order.avatar ?? null, files: {}, created: new Date().toISOString(), finished: null,
      };
      const job = { record, order, events: [] };
      jobs.set(record.id, job);
      keys.set(key, job);
      emit(job, "job");
      job.timer = setTimeout(() => begin(job), stepMs);
      return send(r, 201, record, { location: `/api/jobs/${record.id}` });
    }],
    ["GET", /^\/api\/jobs\/([\w-]+)$/, (q, r, m) => (jobs.has(m[1]) ? send(r, 200, jobs.get(m[1]).record) : refuse(r, 404, "There is no such job; start it anew."))],
    ["DELETE", /^\/api\/jobs\/([\w-]+)$/, (q, r, m) => {
      const job = jobs.get(m[1]);
      if (!job) return refuse(r, 404, "There is no such job.");
      const made = avatars.get(job.record.avatar);
      if (!job.record.finished && made) {
        made.note = "Its refinement was stopped before the end; what it had reached is kept.";
        job.record.notes = [made.note];
      }
      if (!job.record.finished) finish(job, { state: "cancelled" });
      return send(r, 204);
    }],
    ["GET", /^\/api\/jobs\/([\w-]+)\/events$/, (q, r, m) => (jobs.has(m[1]) ? follow(q, r, jobs.get(m[1])) : refuse(r, 404, "There is no such job."))],
    ["GET", /^\/api\/avatars$/, (q, r) => send(r, 200, { avatars: [...avatars.values()].map(avatarOf) })],
    ["GET", /^\/api\/avatars\/([\w-]+)$/, (q, r, m) => (avatars.has(m[1]) ? send(r, 200, avatarOf(avatars.get(m[1]))) : refuse(r, 404, "There is no such avatar; it may have been deleted."))],
    ["PATCH", /^\/api\/avatars\/([\w-]+)$/, (q, r, m, body) => {
      avatars.get(m[1]).name = JSON.parse(body.toString()).name;
      send(r, 200, avatarOf(avatars.get(m[1])));
    }],
    ["DELETE", /^\/api\/avatars\/([\w-]+)$/, (q, r, m) => {
      avatars.delete(m[1]);
      log.deleted.push(m[1]);
      send(r, 204);
    }],
    ["GET", /^\/api\/avatars\/([\w-]+)\/container$/, (q, r, m) => {
      const version = new URL(q.url, "http://x").searchParams.get("version") ?? avatars.get(m[1])?.version;
      return file(r, join(material, `avatar-${Number(version)}.safetensors`));
    }],
    ["GET", /^\/api\/avatars\/([\w-]+)\/thumbnail$/, (q, r) => file(r, join(material, "thumbnail.webp"))],
    ["GET", /^\/api\/files\/([\w-]+)\/([\w.-]+)$/, (q, r, m) => {
      const headers = { "content-disposition": `attachment; filename="${m[2]}"` };
      if (existsSync(join(material, m[2]))) return file(r, join(material, m[2]), headers);
      return send(r, 200, Buffer.from(`canned ${m[2]}`), headers);
    }],
  ];

  const server = createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const { pathname } = new URL(request.url, "http://x");
    const open = !pathname.startsWith("/api/");
    const cookie = /session=([\w-]+)/.exec(request.headers.cookie ?? "")?.[1];
    const bearer = request.headers.authorization === `Bearer ${token}`;
    if (token && !open && !bearer && !(cookie && sessions.has(cookie))) return refuse(response, 401, "A token is needed; open the address that ffavatar serve printed.");
    if (bearer) log.authorized++;
    for (const [method, pattern, act] of routes) {
      const found = request.method === method && pattern.exec(decodeURIComponent(pathname));
      if (found) return act(request, response, found, Buffer.concat(pieces));
    }
    return refuse(response, 404, "There is nothing here.");
  });
  const sockets = new Set();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  const listen = (at) => new Promise((ready) => server.listen(at, "127.0.0.1", () => ready(server.address().port)));
  const used = await listen(port);
  const goAway = () => {
    const closed = new Promise((done) => server.close(done));
    for (const socket of sockets) socket.destroy();
    return closed;
  };
  return {
    origin: `http://127.0.0.1:${used}`, state, log, jobs, avatars,
    /** Stops answering, and comes back at the same address with all it knows. */
    goAway, comeBack: () => listen(used),
    /** Puts an avatar into the history. */
    seed: (name) => newAvatar(name),
    async close() {
      for (const job of jobs.values()) clearTimeout(job.timer);
      if (server.listening) await goAway();
    },
  };
}

/** The files of a multipart body. */
function partsOf(request, body) {
  const boundary = /boundary=(.+)$/.exec(request.headers["content-type"])[1];
  const text = body.toString("latin1");
  return text
    .split(`--${boundary}`)
    .slice(1, -1)
    .map((part) => {
      const cut = part.indexOf("\r\n\r\n");
      const name = /filename="([^"]*)"/.exec(part.slice(0, cut))?.[1] ?? "";
      return { name: Buffer.from(name, "latin1").toString(), data: Buffer.from(part.slice(cut + 4, -2), "latin1") };
    });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [material, port = "8461"] = process.argv.slice(2);
  const server = await mockServer(material, { port: Number(port) });
  console.log(server.origin);
}
