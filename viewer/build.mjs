// Builds dist/ (the npm module) and the bundle that the Python package ships.
//
//   node build.mjs [--dist FOLDER] [--package FOLDER] [--page FOLDER]
import { execFileSync } from "node:child_process";
import { copyFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    dist: { type: "string", default: join(here, "dist") },
    package: { type: "string", default: join(here, "../src/ffavatar/viewer") },
    page: { type: "string", default: join(here, "../src/ffavatar/serve/page") },
  },
});

const shared = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  target: ["es2022", "safari16.4"],
  legalComments: "none",
  charset: "utf8",
};

/** `import source from "worker-source"`: the worker's bundle as a string, so that the viewer is one file. */
const workerSource = {
  name: "worker-source",
  setup(steps) {
    steps.onResolve({ filter: /^worker-source$/ }, ({ path }) => ({ path, namespace: "worker" }));
    steps.onLoad({ filter: /.*/, namespace: "worker" }, async () => {
      const made = await build({ ...shared, entryPoints: ["src/worker/worker.ts"], format: "iife", write: false });
      return { contents: made.outputFiles[0].text, loader: "text" };
    });
  },
};

const entries = { "ff-avatar": "src/index.ts", core: "src/core/index.ts", three: "src/three.ts" };
for (const [name, entry] of Object.entries(entries))
  await build({
    ...shared,
    entryPoints: [entry],
    outfile: join(values.dist, `${name}.js`),
    format: "esm",
    external: ["three"],
    plugins: [workerSource],
  });
execFileSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "--outDir", join(values.dist, "types")], {
  cwd: here,
  stdio: "inherit",
});
await mkdir(values.package, { recursive: true });
await copyFile(join(values.dist, "ff-avatar.js"), join(values.package, "ff-avatar.js"));
for (const name of ["index.html", "page.css"]) await copyFile(join(here, "page", name), join(values.package, name));

// the page of `ffavatar serve`, which finds the viewer's bundle under /viewer/
execFileSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "-p", join(here, "app")], { stdio: "inherit" });
await mkdir(values.page, { recursive: true });
for (const [entry, name] of [["app/main.ts", "app.js"], ["app/app.css", "app.css"]])
  await build({ ...shared, entryPoints: [entry], outfile: join(values.page, name), format: "esm" });
await copyFile(join(here, "app", "index.html"), join(values.page, "index.html"));
