// Hangs Gaussians on posed triangles: the inner loop of animation. ffavatar/animate.py holds the readable form.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "export.h"
#include "parallel.h"

namespace {

struct Quat {
  float w, x, y, z;
};

inline Quat multiply(const Quat& a, const Quat& b) {
  return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
          a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
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
    ffa::parallel_for(threads, points, 4096, [=](int begin, int end) {
      for (int i = begin; i < end; ++i) {
        float p[3] = {0, 0, 0};
        float r[4] = {0, 0, 0, 0};
        for (int k = 0; k < 3; ++k) {
          const float share = barycentric[3 * i + k];
          const int64_t v = parents[3 * i + k];
          for (int c = 0; c < 3; ++c) p[c] += share * place[3 * v + c];
          for (int c = 0; c < 4; ++c) r[c] += share * turn[4 * v + c];
        }
        const float norm = 1.0f / std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2] + r[3] * r[3] + 1e-24f);
        const Quat q{r[0] * norm, r[1] * norm, r[2] * norm, r[3] * norm};
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
