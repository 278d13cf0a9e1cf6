/** Reads, poses and sorts away from the page's thread. Centres and their order leave together. */

import { forwardOf } from "../core/camera.js";
import { readAvatar, type AvatarFile, type ShadesFile } from "../core/container.js";
import { appearanceOf, chooseDetail, DETAIL_LEVELS, isWhole, type Detail } from "../core/detail.js";
import { bindingOf, Rig, VERTEX_STRIDE, type Binding } from "../core/rig.js";
import { Shading } from "../core/shading.js";
import { DepthSorter } from "../core/sort.js";
import { buffersOf, type AvatarInfo, type FromWorker, type Posed, type ToWorker } from "./messages.js";

interface Port {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker, transfer: Transferable[]): void;
}
const port = self as unknown as Port;

interface Loaded {
  readonly file: AvatarFile;
  readonly rig: Rig;
  readonly chosen: (Detail | undefined | null)[]; // null: not asked for yet
  binding: Binding;
  shading?: Shading | undefined;
}
let loaded: Loaded | undefined;
const sorter = new DepthSorter();
const spare: Posed[] = [];

const hasShades = (file: AvatarFile): file is AvatarFile & { shades: ShadesFile } => file.shades !== undefined;

function infoOf(file: AvatarFile): AvatarInfo {
  const { edition, licence, about, expressionNames, arkitPose, gaussianCount, joints, jointExpdirs } = file;
  const counts = DETAIL_LEVELS.map((n) => (isWhole(gaussianCount, n) ? gaussianCount : n));
  // between the eyes' height and the neck joint, half way into the head
  const eyes = (joints[9 + 1] + joints[12 + 1]) / 2;
  const middle = [0, eyes - 0.02, (joints[3 + 2] + joints[9 + 2]) / 2] as const;
  return { edition, licence, about, expressionNames, arkitPose, gaussianCount, joints, jointExpdirs, counts, middle };
}

function setLevel(state: Loaded, level: number): void {
  const detail = state.chosen[level] === null ? chooseDetail(state.file, DETAIL_LEVELS[level]) : state.chosen[level];
  state.chosen[level] = detail;
  state.binding = bindingOf(state.file, detail?.index);
  spare.length = 0;
  const appearance = appearanceOf(state.file, detail ?? undefined);
  const { file } = state;
  state.shading = hasShades(file) ? new Shading(file, state.rig, appearance.colors.slice(), detail ?? undefined) : undefined;
  const transfer = [appearance.scales.buffer, appearance.colors.buffer] as ArrayBuffer[];
  port.postMessage({ kind: "appearance", level, appearance }, transfer);
}

function pose(state: Loaded, message: Extract<ToWorker, { kind: "pose" }>): void {
  const begun = performance.now();
  const { count } = state.binding;
  const frame = spare.pop() ?? {
    posed: new Float32Array(VERTEX_STRIDE * count),
    order: new Uint32Array(count),
    colors: state.shading && new Uint8Array(4 * count),
  };
  const { params, worldToCam } = message;
  if (state.shading && frame.colors) state.shading.mix(state.binding, params, worldToCam, frame.colors);
  state.rig.poseVertices(params);
  state.rig.poseGaussians(state.binding, frame.posed);
  sorter.sort(frame.posed, VERTEX_STRIDE, forwardOf({ worldToCam }), frame.order);
  const workMs = performance.now() - begun;
  port.postMessage({ kind: "posed", ...frame, workMs }, buffersOf(frame));
}

port.onmessage = ({ data }) => {
  try {
    if (data.kind === "load") {
      const file = readAvatar(data.buffer);
      const state = { file, rig: new Rig(file), chosen: DETAIL_LEVELS.map(() => null), binding: bindingOf(file, new Uint32Array()) };
      port.postMessage({ kind: "loaded", info: infoOf(file) }, []);
      setLevel(state, data.level);
      loaded = state;
    } else if (!loaded) {
      // a message that was on its way when loading failed
    } else if (data.kind === "level") {
      setLevel(loaded, data.level);
    } else if (data.kind === "pose") {
      pose(loaded, data);
    } else if (data.order.length === loaded.binding.count) {
      spare.push({ posed: data.posed, order: data.order, colors: data.colors });
    }
  } catch (error) {
    port.postMessage({ kind: "failed", message: error instanceof Error ? error.message : String(error) }, []);
  }
};
