// Hangs Gaussians on posed triangles: the inner loop of animation, and of every fit through it. ffavatar/animate.py
// holds the readable form.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "export.h"
#include "parallel.h"

namespace {

constexpr int CHUNK = 4096;

struct Quat {
  float w, x, y, z;
};

inline Quat multiply(const Quat& a, const Quat& b) {
  return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
          a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}

inline Quat conjugate(const Quat& q) { return {q.w, -q.x, -q.y, -q.z}; }

// The rotation that the three vertices around a Gaussian share: their mean, and what made it of length one.
struct Turn {
  Quat unit;
  float inverse_norm;
};

inline Turn blended_turn(const float* turns, const int64_t* parents, const float* barycentric) {
  float r[4] = {0, 0, 0, 0};
  for (int k = 0; k < 3; ++k)
    for (int c = 0; c < 4; ++c) r[c] += barycentric[k] * turns[4 * parents[k] + c];
  const float norm = 1.0f / std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2] + r[3] * r[3] + 1e-24f);
  return {{r[0] * norm, r[1] * norm, r[2] * norm, r[3] * norm}, norm};
}

}  // namespace

// posed (frames, vertices, 3), turns (frames, vertices, 4) wxyz; parents (points, 3), barycentric (points, 3), offsets
// (points, 3), quats (points, 4) -> means (frames, points, 3), out (frames, points, 4).
FFA_EXPORT void ffa_attach(int threads, int frames, int vertices, int points, const float* posed, const float* turns,
                           const int64_t* parents, const float* barycentric, const float* offsets, const float* quats,
                           float* means, float* out) {
  for (int frame = 0; frame < frames; ++frame) {
    const float* place = posed + std::size_t(frame) * vertices * 3;
    const float* turn = turns + std::size_t(frame) * vertices * 4;
    float* mean = means + std::size_t(frame) * points * 3;
    float* quat = out + std::size_t(frame) * points * 4;
    ffa::parallel_for(threads, points, CHUNK, [=](int begin, int end) {
      for (int i = begin; i < end; ++i) {
        float p[3] = {0, 0, 0};
        for (int k = 0; k < 3; ++k)
          for (int c = 0; c < 3; ++c) p[c] += barycentric[3 * i + k] * place[3 * parents[3 * i + k] + c];
        const Quat q = blended_turn(turn, parents + 3 * i, barycentric + 3 * i).unit;
        const float* o = offsets + 3 * i;
        const float tx = 2 * (q.y * o[2] - q.z * o[1]);
        const float ty = 2 * (q.z * o[0] - q.x * o[2]);
        const float tz = 2 * (q.x * o[1] - q.y * o[0]);
        mean[3 * i] = p[0] + o[0] + q.w * tx + q.y * tz - q.z * ty;
        mean[3 * i + 1] = p[1] + o[1] + q.w * ty + q.z * tx - q.x * tz;
        mean[3 * i + 2] = p[2] + o[2] + q.w * tz + q.x * ty - q.y * tx;
        const Quat turned = multiply(q, {quats[4 * i], quats[4 * i + 1], quats[4 * i + 2], quats[4 * i + 3]});
        quat[4 * i] = turned.w;
        quat[4 * i + 1] = turned.x;
        quat[4 * i + 2] = turned.y;
        quat[4 * i + 3] = turned.z;
      }
    });
  }
}

// The gradients of what ffa_attach makes, from those of its results, v_means (frames, points, 3) and v_out (frames,
// points, 4). Writes v_posed (frames, vertices, 3), v_turns (frames, vertices, 4), and v_offsets (points, 3), v_quats
// (points, 4) summed over the frames. Every sum is in one order, whatever the threads. 1: out of memory.
FFA_EXPORT int ffa_attach_backward(int threads, int frames, int vertices, int points, const float* turns,
                                   const int64_t* parents, const float* barycentric, const float* offsets,
                                   const float* quats, const float* v_means, const float* v_out, float* v_posed,
                                   float* v_turns, float* v_offsets, float* v_quats) {
  ffa::Buffer<int> starts, corners;  // of each vertex, the corners (3 point + k) that hang on it
  ffa::Buffer<float> of_turns;       // (points, 4) gradients of the blended, not yet normalised rotations
  try {
    starts.allocate(std::size_t(vertices) + 2);
    corners.allocate(std::size_t(points) * 3);
    of_turns.allocate(std::size_t(points) * 4);
  } catch (...) {
    return 1;
  }
  for (int v = 0; v < vertices + 2; ++v) starts[v] = 0;
  for (int i = 0; i < 3 * points; ++i) ++starts[parents[i] + 2];
  for (int v = 2; v < vertices + 2; ++v) starts[v] += starts[v - 1];
  for (int i = 0; i < 3 * points; ++i) corners[starts[parents[i] + 1]++] = i;

  int *const first = starts.data(), *const corner = corners.data();
  float* const of_turn = of_turns.data();
  for (int frame = 0; frame < frames; ++frame) {
    const float* turn = turns + std::size_t(frame) * vertices * 4;
    const float* v_mean = v_means + std::size_t(frame) * points * 3;
    const float* v_quat = v_out + std::size_t(frame) * points * 4;
    ffa::parallel_for(threads, points, CHUNK, [=](int begin, int end) {
      for (int i = begin; i < end; ++i) {
        const Turn blended = blended_turn(turn, parents + 3 * i, barycentric + 3 * i);
        const Quat q = blended.unit;
        const float* o = offsets + 3 * i;
        const float* g = v_mean + 3 * i;
        // mean = o + 2 w (u x o) + 2 u x (u x o), with q = (w, u)
        const float u[3] = {q.x, q.y, q.z};
        const float uo = u[0] * o[0] + u[1] * o[1] + u[2] * o[2];
        const float ug = u[0] * g[0] + u[1] * g[1] + u[2] * g[2];
        const float og = o[0] * g[0] + o[1] * g[1] + o[2] * g[2];
        const float uu = u[0] * u[0] + u[1] * u[1] + u[2] * u[2];
        const float ogx[3] = {o[1] * g[2] - o[2] * g[1], o[2] * g[0] - o[0] * g[2], o[0] * g[1] - o[1] * g[0]};
        const float gux[3] = {g[1] * u[2] - g[2] * u[1], g[2] * u[0] - g[0] * u[2], g[0] * u[1] - g[1] * u[0]};
        float of_u[3], of_o[3];
        for (int c = 0; c < 3; ++c) {
          of_u[c] = 2 * (q.w * ogx[c] + g[c] * uo + o[c] * ug - 2 * u[c] * og);
          of_o[c] = g[c] + 2 * (q.w * gux[c] + u[c] * ug - g[c] * uu);
        }
        // out = q own: each factor's gradient is the product with the other's conjugate
        const Quat go{v_quat[4 * i], v_quat[4 * i + 1], v_quat[4 * i + 2], v_quat[4 * i + 3]};
        const Quat own{quats[4 * i], quats[4 * i + 1], quats[4 * i + 2], quats[4 * i + 3]};
        const Quat of_own = multiply(conjugate(q), go), of_q = multiply(go, conjugate(own));
        const float total[4] = {of_q.w + 2 * (u[0] * ogx[0] + u[1] * ogx[1] + u[2] * ogx[2]), of_q.x + of_u[0],
                                of_q.y + of_u[1], of_q.z + of_u[2]};
        const float unit[4] = {q.w, q.x, q.y, q.z};
        const float along = total[0] * unit[0] + total[1] * unit[1] + total[2] * unit[2] + total[3] * unit[3];
        for (int c = 0; c < 4; ++c) of_turn[4 * i + c] = (total[c] - along * unit[c]) * blended.inverse_norm;
        const float share[4] = {of_own.w, of_own.x, of_own.y, of_own.z};
        for (int c = 0; c < 3; ++c) v_offsets[3 * i + c] = (frame ? v_offsets[3 * i + c] : 0.0f) + of_o[c];
        for (int c = 0; c < 4; ++c) v_quats[4 * i + c] = (frame ? v_quats[4 * i + c] : 0.0f) + share[c];
      }
    });
    float* of_place = v_posed + std::size_t(frame) * vertices * 3;
    float* of_vertex_turn = v_turns + std::size_t(frame) * vertices * 4;
    ffa::parallel_for(threads, vertices, 256, [=](int begin, int end) {
      for (int v = begin; v < end; ++v) {
        float sums[7] = {};
        for (int at = first[v]; at < first[v + 1]; ++at) {
          const int i = corner[at] / 3;
          const float share = barycentric[corner[at]];
          for (int c = 0; c < 3; ++c) sums[c] += share * v_mean[3 * i + c];
          for (int c = 0; c < 4; ++c) sums[3 + c] += share * of_turn[4 * i + c];
        }
        for (int c = 0; c < 3; ++c) of_place[3 * v + c] = sums[c];
        for (int c = 0; c < 4; ++c) of_vertex_turn[4 * v + c] = sums[3 + c];
      }
    });
  }
  return 0;
}
