// A page in headless Chromium, served from loopback, with every request noted.
import { createReadStream, existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, normalize } from "node:path";
import { chromium } from "playwright-core";

const TYPES = { ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json" };

const EMPTY_PAGE = `<!doctype html><title>test</title><link rel=icon href="data:,">
<script type="importmap">{"imports": {"three": "/three/three.module.js"}}</script><body></body>`;

/** Serves folders: { "/dist/": folder, ... }. "/" is an empty page, whose modules find three.js under "/three/". */
export async function serve(folders) {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    if (path === "/") {
      response.setHeader("content-type", "text/html");
      response.end(EMPTY_PAGE);
      return;
    }
    const root = Object.keys(folders).find((prefix) => path.startsWith(prefix));
    const file = root && join(folders[root], normalize(path.slice(root.length)));
    if (!file || !existsSync(file) || !statSync(file).isFile()) {
      response.statusCode = 404;
      response.end();
      return;
    }
    response.setHeader("content-type", TYPES[file.slice(file.lastIndexOf("."))] ?? "application/octet-stream");
    response.setHeader("content-length", statSync(file).size);
    createReadStream(file).pipe(response);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** Opens Chromium with WebGL2 through SwiftShader (`graphics: false` for none; `extra`: more switches) and a profile of its own. */
export async function open({ graphics = true, extra = [], ...options } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "ff-avatar-"));
  const drawing = graphics
    ? ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    : ["--disable-gpu", "--disable-3d-apis", "--disable-software-rasterizer"];
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM,
    headless: true,
    acceptDownloads: true,
    ...options,
    args: [
      "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", ...drawing, ...extra,
    ],
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(60_000); // machines that run tests may do other work too
  const requests = [];
  const problems = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(message.text());
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { page, requests, problems, close };
}
