// Mixes the shades of views into each frame's colours. ffavatar/shades.py holds the readable form.

#include <cstddef>
#include <cstdint>

#include "export.h"
#include "parallel.h"

namespace {

constexpr int CHUNK = 4096;

}  // namespace

// alike (frames, vertices, views), certainty (points, views), parents (points, 3), barycentric (points, 3), shades
// (points, views, 3) -> out (frames, points, 3): the mean of a point's shades, weighted by certainty times alike, and with
// `lasting` as the weight of none.
FFA_EXPORT void ffa_shade(int threads, int frames, int vertices, int points, int views, float lasting, const float* alike,
                          const float* certainty, const int64_t* parents, const float* barycentric, const float* shades,
                          float* out) {
  for (int frame = 0; frame < frames; ++frame) {
    const float* like = alike + std::size_t(frame) * vertices * views;
    float* made = out + std::size_t(frame) * points * 3;
    ffa::parallel_for(threads, points, CHUNK, [=](int begin, int end) {
      for (int i = begin; i < end; ++i) {
        const float* corner[3];
        for (int c = 0; c < 3; ++c) corner[c] = like + std::size_t(parents[3 * i + c]) * views;
        const float *const share = barycentric + 3 * i, *const sure = certainty + std::size_t(i) * views;
        const float* shade = shades + std::size_t(i) * views * 3;
        float sum = lasting, mixed[3] = {0, 0, 0};
        for (int k = 0; k < views; ++k, shade += 3) {
          const float weight =
              (share[0] * corner[0][k] + share[1] * corner[1][k] + share[2] * corner[2][k]) * sure[k];
          sum += weight;
          for (int c = 0; c < 3; ++c) mixed[c] += weight * shade[c];
        }
        for (int c = 0; c < 3; ++c) made[3 * i + c] = mixed[c] / sum;
      }
    });
  }
}
