/**
 * Colours that come and go with expression and view, mixed as `ffavatar.shades` mixes them: each view that the avatar was
 * made from lends what it shows beyond the lasting colours, where the face lies as in it and is seen from its side.
 */

import type { AvatarFile, ShadesFile } from "./container.js";
import type { Detail } from "./detail.js";
import { JOINTS, type HeadParams } from "./params.js";
import { VERTEX_STRIDE, type Binding, type Rig } from "./rig.js";
import { axisAngleToMatrix, multiplyMatrices } from "./rotation.js";

const MOVED_M = 2e-3;
const TURNED_RAD = 0.12;
const LASTING = 0.02;
/** Steps of a stored difference in a whole colour. */
const STEPS = 254;
/** Closeness below which a view lends nothing that a byte could show. */
const FAR = 1e-5;

/** Shades of what is drawn: of single Gaussians, or the means of runs. */
interface Drawn {
  readonly colors: Int8Array; // (n, K, 3)
  readonly certainty: Uint8Array; // (n, K)
}

function drawn({ colors, certainty, views }: ShadesFile, opacities: Uint8Array, detail?: Detail): Drawn {
  if (!detail) return { colors, certainty };
  const count = detail.index.length;
  const made = { colors: new Int8Array(3 * views * count), certainty: new Uint8Array(views * count) };
  const sum = new Float64Array(4 * views);
  for (let i = 0; i < count; i++) {
    sum.fill(0);
    let whole = 0;
    for (let m = detail.starts[i]; m < detail.starts[i + 1]; m++) {
      const g = detail.members[m];
      const share = opacities[g];
      whole += share;
      for (let k = 0; k < views; k++) {
        sum[4 * k + 3] += share * certainty[g * views + k];
        for (let c = 0; c < 3; c++) sum[4 * k + c] += share * colors[3 * (g * views + k) + c];
      }
    }
    if (!whole) continue;
    for (let k = 0; k < views; k++) {
      made.certainty[i * views + k] = Math.round(sum[4 * k + 3] / whole);
      for (let c = 0; c < 3; c++) made.colors[3 * (i * views + k) + c] = Math.round(sum[4 * k + c] / whole);
    }
  }
  return made;
}

export class Shading {
  private readonly shades: ShadesFile;
  private readonly drawn: Drawn;
  private readonly movedThen: Float64Array[]; // of each view (V, 3): how far expression and jaw took the vertices
  private readonly turnedThen: Float64Array[]; // of each view, the head's rotation before the camera
  private readonly moved: Float64Array;
  private readonly alike: Float64Array; // (V, K)

  /** `colors` (n, 4): the lasting ones of the Gaussians that are drawn, with their opacities. */
  constructor(
    file: AvatarFile & { readonly shades: ShadesFile },
    private readonly rig: Rig,
    private readonly colors: Uint8Array,
    detail?: Detail,
  ) {
    const { shades, expressionCount: E } = file;
    this.shades = shades;
    this.drawn = drawn(shades, file.opacities, detail);
    this.moved = new Float64Array(3 * rig.vertexCount);
    this.alike = new Float64Array(rig.vertexCount * shades.views);
    const views = Array.from({ length: shades.views }, (_, k) => k);
    this.movedThen = views.map((k) => {
      const expression = Float64Array.from(shades.expression.subarray(k * E, (k + 1) * E));
      return this.move(expression, shades.jaw.subarray(3 * k, 3 * k + 3)).slice();
    });
    this.turnedThen = views.map((k) => axisAngleToMatrix(shades.turn[3 * k], shades.turn[3 * k + 1], shades.turn[3 * k + 2]));
  }

  /** How far expression and jaw take the vertices from rest. The rig's own vertices are then of that pose. */
  private move(expression: Float64Array, jaw: ArrayLike<number>): Float64Array {
    const joints = new Float64Array(15);
    joints.set(jaw, 3 * JOINTS.indexOf("jaw"));
    this.rig.poseVertices({ joints, translation: new Float64Array(3), expression });
    const { vertices, neutral } = this.rig;
    for (let v = 0; v < this.rig.vertexCount; v++)
      for (let c = 0; c < 3; c++) this.moved[3 * v + c] = vertices[v * VERTEX_STRIDE + c] - neutral[3 * v + c];
    return this.moved;
  }

  /** Fills `alike`. `worldToCam` (4, 4) row-major, OpenCV's axes. */
  private compare({ joints, expression }: HeadParams, worldToCam: ArrayLike<number>): void {
    const { alike, movedThen, turnedThen } = this;
    const views = movedThen.length;
    const moved = this.move(expression, joints.subarray(6, 9));
    const root = axisAngleToMatrix(joints[0], joints[1], joints[2]);
    const neck = axisAngleToMatrix(joints[3], joints[4], joints[5]);
    // the normalised camera's axes, y and z turned round, are where the views' rotations are told
    const seen = Float64Array.from({ length: 9 }, (_, i) => (i < 3 ? 1 : -1) * worldToCam[4 * Math.floor(i / 3) + (i % 3)]);
    const turned = multiplyMatrices(seen, multiplyMatrices(root, neck));
    for (let k = 0; k < views; k++) {
      const apart = turned.reduce((sum, x, i) => sum + (x - turnedThen[k][i]) ** 2, 0) / (2 * TURNED_RAD ** 2);
      const then = movedThen[k];
      const none = Math.exp(-0.5 * apart) < FAR;
      for (let v = 0, t = 0, a = k; v < this.rig.vertexCount; v++, t += 3, a += views) {
        const x = moved[t] - then[t], y = moved[t + 1] - then[t + 1], z = moved[t + 2] - then[t + 2];
        alike[a] = none ? 0 : Math.exp(-0.5 * (apart + (x * x + y * y + z * z) / MOVED_M ** 2));
      }
    }
  }

  /**
   * The colours of a pose: `out` (n, 4) bytes, opacities included. Poses the rig's vertices for its own ends, so it comes
   * before their pose of the frame.
   */
  mix(binding: Binding, params: HeadParams, worldToCam: ArrayLike<number>, out: Uint8Array): void {
    this.compare(params, worldToCam);
    const { alike, colors } = this;
    const { colors: shades, certainty } = this.drawn;
    const { parents, barycentric, count } = binding;
    const views = this.shades.views;
    for (let i = 0, t = 0, o = 0; i < count; i++, t += 3, o += 4) {
      const u = parents[t] * views, v = parents[t + 1] * views, w = parents[t + 2] * views;
      const a = barycentric[t], b = barycentric[t + 1], c = barycentric[t + 2];
      let sum = LASTING, red = 0, green = 0, blue = 0;
      for (let k = 0, s = i * views; k < views; k++, s++) {
        const weight = ((a * alike[u + k] + b * alike[v + k] + c * alike[w + k]) * certainty[s]) / 255;
        sum += weight;
        red += weight * shades[3 * s];
        green += weight * shades[3 * s + 1];
        blue += weight * shades[3 * s + 2];
      }
      const scale = 255 / STEPS / sum;
      out[o] = byte(colors[o] + scale * red);
      out[o + 1] = byte(colors[o + 1] + scale * green);
      out[o + 2] = byte(colors[o + 2] + scale * blue);
      out[o + 3] = colors[o + 3];
    }
  }
}

const byte = (value: number): number => (value < 0 ? 0 : value > 255 ? 255 : Math.round(value));
