/**
 * Poses an avatar exactly as `ffavatar.animate` does, in its order: expressions and pose correctives move the base
 * vertices, skinning moves them with all five joints, and a Gaussian takes the barycentric mixture of its parents.
 */

import type { AvatarFile } from "./container.js";
import type { HeadParams } from "./params.js";
import { CORRECTIVES, JOINT_COUNT, JOINT_STRIDE, Skeleton } from "./skeleton.js";

/** Numbers per posed vertex: position (3), quaternion (4), one unused so that rows are aligned. */
export const VERTEX_STRIDE = 8;

/** Which Gaussians are posed: all of them, or a level of detail. */
export interface Binding {
  readonly count: number;
  readonly parents: Uint16Array; // (n, 3)
  readonly barycentric: Float32Array; // (n, 3)
  readonly offsets: Float32Array; // (n, 3)
  readonly quats: Float32Array; // (n, 4) wxyz, normalised
}

/** The Gaussians `index` of an avatar, or all. */
export function bindingOf(file: AvatarFile, index?: Uint32Array): Binding {
  const count = index ? index.length : file.gaussianCount;
  const binding = {
    count,
    parents: new Uint16Array(3 * count),
    barycentric: new Float32Array(3 * count),
    offsets: new Float32Array(3 * count),
    quats: new Float32Array(4 * count),
  };
  for (let i = 0; i < count; i++) {
    const g = index ? index[i] : i;
    for (let k = 0; k < 3; k++) {
      binding.parents[3 * i + k] = file.parents[3 * g + k];
      binding.barycentric[3 * i + k] = file.barycentric[3 * g + k];
      binding.offsets[3 * i + k] = file.offsets[3 * g + k];
    }
    const q = file.quats.subarray(4 * g, 4 * g + 4);
    const norm = Math.hypot(q[0], q[1], q[2], q[3]) || 1;
    for (let k = 0; k < 4; k++) binding.quats[4 * i + k] = q[k] / norm;
  }
  return binding;
}

export class Rig {
  readonly vertexCount: number;
  readonly expressionCount: number;
  readonly neutral: Float32Array; // (V, 3)
  private readonly skeleton: Skeleton;
  private readonly weights: Float64Array; // (V, 5), rows sum to 1
  private readonly basisRows: Int32Array;
  /** (E + 36, M, 3): one row per coefficient, so that a coefficient is one pass over memory. */
  private readonly basis: Float32Array;
  private readonly moved: Float64Array; // (M, 3) displacement of the moving vertices
  private readonly shaped: Float64Array; // (V, 3) before skinning
  /** (V, 8) after `poseVertices`: position, quaternion wxyz normalised, 0. */
  readonly vertices: Float64Array;

  constructor(file: AvatarFile) {
    const { vertexCount: V, expressionCount: E } = file;
    this.vertexCount = V;
    this.expressionCount = E;
    this.neutral = file.neutral;
    this.skeleton = new Skeleton(file.joints, file.jointExpdirs);
    this.basisRows = file.basisRows;
    this.weights = new Float64Array(V * JOINT_COUNT);
    for (let v = 0; v < V; v++) {
      const row = file.lbsWeights.subarray(v * JOINT_COUNT, (v + 1) * JOINT_COUNT);
      const sum = row.reduce((a, b) => a + b, 0) || 1;
      for (let j = 0; j < JOINT_COUNT; j++) this.weights[v * JOINT_COUNT + j] = row[j] / sum;
    }
    const rows = file.basisRows.length * 3;
    this.basis = new Float32Array((E + CORRECTIVES) * rows);
    for (let r = 0; r < rows; r++) {
      for (let e = 0; e < E; e++) this.basis[e * rows + r] = file.expdirs[r * E + e];
      for (let c = 0; c < CORRECTIVES; c++) this.basis[(E + c) * rows + r] = file.posedirs[r * CORRECTIVES + c];
    }
    this.moved = new Float64Array(rows);
    this.shaped = new Float64Array(V * 3);
    this.vertices = new Float64Array(V * VERTEX_STRIDE);
  }

  private deform(expression: Float64Array, feature: Float64Array): void {
    const { basis, moved, shaped, basisRows } = this;
    const rows = moved.length;
    moved.fill(0);
    for (let k = 0; k < this.expressionCount + CORRECTIVES; k++) {
      const amount = k < this.expressionCount ? expression[k] : feature[k - this.expressionCount];
      if (amount === 0) continue;
      const start = k * rows;
      for (let r = 0; r < rows; r++) moved[r] += amount * basis[start + r];
    }
    shaped.set(this.neutral);
    for (let m = 0; m < basisRows.length; m++) {
      const at = 3 * basisRows[m];
      shaped[at] += moved[3 * m];
      shaped[at + 1] += moved[3 * m + 1];
      shaped[at + 2] += moved[3 * m + 2];
    }
  }

  /** Poses the base vertices into `vertices`. */
  poseVertices(params: HeadParams): void {
    this.deform(params.expression, this.skeleton.pose(params));
    const { shaped, weights, vertices } = this;
    const J = this.skeleton.data;
    const mixed = new Float64Array(JOINT_STRIDE);
    for (let v = 0; v < this.vertexCount; v++) {
      mixed.fill(0);
      for (let j = 0; j < JOINT_COUNT; j++) {
        const weight = weights[v * JOINT_COUNT + j];
        if (weight === 0) continue;
        const start = j * JOINT_STRIDE;
        for (let k = 0; k < JOINT_STRIDE; k++) mixed[k] += weight * J[start + k];
      }
      const x = shaped[3 * v], y = shaped[3 * v + 1], z = shaped[3 * v + 2];
      const w = mixed[12], a = mixed[13], b = mixed[14], c = mixed[15];
      const norm = 1 / Math.max(Math.sqrt(w * w + a * a + b * b + c * c), 1e-12);
      const at = v * VERTEX_STRIDE;
      vertices[at] = mixed[0] * x + mixed[1] * y + mixed[2] * z + mixed[9];
      vertices[at + 1] = mixed[3] * x + mixed[4] * y + mixed[5] * z + mixed[10];
      vertices[at + 2] = mixed[6] * x + mixed[7] * y + mixed[8] * z + mixed[11];
      vertices[at + 3] = w * norm;
      vertices[at + 4] = a * norm;
      vertices[at + 5] = b * norm;
      vertices[at + 6] = c * norm;
    }
  }

  /**
   * Poses Gaussians on the vertices of the last `poseVertices`.
   *
   * `out` (n, 8): centre in metres, 0, quaternion wxyz.
   */
  poseGaussians(binding: Binding, out: Float32Array): void {
    const { parents, barycentric, offsets, quats, count } = binding;
    const P = this.vertices;
    for (let i = 0, t = 0, q = 0, o = 0; i < count; i++, t += 3, q += 4, o += 8) {
      const u = parents[t] * VERTEX_STRIDE, v = parents[t + 1] * VERTEX_STRIDE, w = parents[t + 2] * VERTEX_STRIDE;
      const a = barycentric[t], b = barycentric[t + 1], c = barycentric[t + 2];
      let qw = a * P[u + 3] + b * P[v + 3] + c * P[w + 3];
      let qx = a * P[u + 4] + b * P[v + 4] + c * P[w + 4];
      let qy = a * P[u + 5] + b * P[v + 5] + c * P[w + 5];
      let qz = a * P[u + 6] + b * P[v + 6] + c * P[w + 6];
      const norm = 1 / Math.max(Math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12);
      qw *= norm, qx *= norm, qy *= norm, qz *= norm;
      const x = offsets[t], y = offsets[t + 1], z = offsets[t + 2];
      const tx = 2 * (qy * z - qz * y), ty = 2 * (qz * x - qx * z), tz = 2 * (qx * y - qy * x);
      out[o] = a * P[u] + b * P[v] + c * P[w] + x + qw * tx + qy * tz - qz * ty;
      out[o + 1] = a * P[u + 1] + b * P[v + 1] + c * P[w + 1] + y + qw * ty + qz * tx - qx * tz;
      out[o + 2] = a * P[u + 2] + b * P[v + 2] + c * P[w + 2] + z + qw * tz + qx * ty - qy * tx;
      const rw = quats[q], rx = quats[q + 1], ry = quats[q + 2], rz = quats[q + 3];
      out[o + 4] = qw * rw - qx * rx - qy * ry - qz * rz;
      out[o + 5] = qw * rx + qx * rw + qy * rz - qz * ry;
      out[o + 6] = qw * ry - qx * rz + qy * rw + qz * rx;
      out[o + 7] = qw * rz + qx * ry - qy * rx + qz * rw;
    }
  }
}
