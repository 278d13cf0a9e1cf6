// What the stages of the rasteriser hand to each other.
//
// The pipeline of one view:  project -> sort by depth -> bin into tiles -> composite each tile front to back,
// and backwards:             tile gradients, one record per (Gaussian, tile) pair -> sum per Gaussian -> project_backward.
// Every sum runs in an order that the thread count does not change, so results are bit-identical for any number of threads.
#pragma once

#include <cstdint>

namespace ffa {

constexpr int TILE_W = 16;
constexpr int TILE_H = 16;
constexpr int MAX_CHANNELS = 8;  // one pass of the tile kernels; more channels take several passes

// gsplat 1.5.3's constants
constexpr float MAX_ALPHA = 0.999f;
constexpr float MIN_ALPHA = 1.0f / 255.0f;
constexpr float MIN_TRANSMITTANCE = 1e-4f;
constexpr float MAX_EXTENT = 3.33f;  // standard deviations

constexpr float LOG2_255 = 7.994353436858858f;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float EIGHTH_LOG2_E = LOG2_E / 8;
constexpr float LN_2 = 0.6931471805599453f;

// A Gaussian on the picture. With d = centre - pixel centre:
//   log2(alpha) / 8 = peak - (a dx^2 + b dx dy + c dy^2)
// (an eighth, because the kernels' exponential starts from there).
struct alignas(64) Splat {
    float x, y;                 // centre, pixels
    float a, b, c;              // half the inverse covariance (b whole), times log2(e) / 8
    float peak;                 // log2(opacity) / 8
    float half_w, half_h;       // of the box outside which alpha < 1/255, pixels
    float color[MAX_CHANNELS];  // the first channels, so that one cache line holds all a pixel needs
};

struct TileBox {
    std::uint16_t x0, y0, x1, y1;  // tiles [x0, x1) x [y0, y1); empty when not drawn
    int tiles() const { return (x1 - x0) * (y1 - y0); }
};

// One view's input; rows follow each other without gaps.
struct Scene {
    const float *means, *quats, *scales, *opacities, *colors;  // (N,3) (N,4) wxyz (N,3) (N) (N,channels)
    const float *viewmat, *K;                                  // (4,4) world to camera, (3,3) pixels
    int channels, width, height;
    bool antialiased;
    float near_plane, far_plane, radius_clip, eps2d;
};

// Gradient sums of one Gaussian over its pixels, s = dLoss/dsigma with alpha = opacity exp(-sigma):
//   sum s, s dx, s dy, s dx^2, s dx dy, s dy^2.
constexpr int MOMENTS = 6;

struct SceneGradients {
    float *means, *quats, *scales, *opacities;
};

struct TileForward {
    const Splat* splats;
    const float* colors;  // channel 0 of this pass of Gaussian 0
    std::int64_t color_stride;  // floats from one Gaussian's colours to the next one's
    const int* list;      // the tile's Gaussians, nearest first
    int count;
    int x, y;             // the tile's first pixel
    int width, height, channels;  // of the picture
    const float* background;      // of this pass, or null
    float *out_colors, *out_alphas;  // (H,W,channels) at this pass's first channel, (H,W)
    int* used;            // out: how many of the list were looked at before every pixel was full
};

struct TileBackward {
    const Splat* splats;
    const float* colors;
    std::int64_t color_stride;
    const int* list;
    const int* slots;     // where each pair's record goes
    int count, used;
    int x, y;
    int width, height, channels;
    const float *out_colors, *out_alphas;
    const float *v_colors;  // cotangents
    const float *v_alphas;  // may be null
    float* records;         // (pairs, MOMENTS + channels of this pass)
};

constexpr int SSIM_WINDOW = 11;  // side of the window of structural similarity

// One row of windows; pictures are (height, row) with row = width channels.
struct SsimRow {
    const float* window;  // (SSIM_WINDOW) weights
    int row, channels;
    const float *first, *second;  // at the windows' top row
    float* work;                  // 5 row + 5 (row - 10 channels)
    float* slopes;                // this row of the first of three planes, or null
    std::int64_t plane;           // floats from one plane to the next
};

// One row of the gradient.
struct SsimRowBackward {
    const float* window;
    int row, channels;
    const float *first, *second;
    const float* slopes;  // of the windows that begin at this row, in the first plane; those k rows above are k rows back
    std::int64_t plane;
    int first_k, last_k;
    float scale;
    float* work;  // 3 (row + 10 channels) + 3 row
    float* out;
};

// The kernels compiled for one instruction set. Tile kernels are indexed by the channels of the pass; null = not compiled.
struct Kernels {
    const char* name;
    void (*project)(const Scene&, int begin, int end, Splat*, TileBox*, std::uint32_t* depth_keys);
    void (*project_backward)(const Scene&, int begin, int end, const Splat*, const TileBox*, const float* moments,
                             const SceneGradients&);
    void (*forward[MAX_CHANNELS + 1])(const TileForward&);
    void (*backward[MAX_CHANNELS + 1])(const TileBackward&);
    double (*ssim_row)(const SsimRow&);
    void (*ssim_row_backward)(const SsimRowBackward&);
};

const Kernels& kernels();  // the best this CPU has, unless a test asked for others

extern const Kernels kernels_baseline;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace ffa
