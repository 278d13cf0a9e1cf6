// All kernels for one instruction set. Compiled once per set: the including file defines KERNELS (the table's name), LANES,
// BLOCK_W and BLOCK_H (the pixels of one vector), and is compiled with that set's flags (see build.py).
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "splat.h"

namespace ffa {
namespace {

#include "vector.inl"

#include "project.inl"
#include "tiles.inl"
#include "similarity.inl"

}  // namespace

const Kernels KERNELS = {
    KERNELS_NAME,
    project,
    project_backward,
    {nullptr, forward_tile<1>, forward_tile<2>, forward_tile<3>, forward_tile<4>, nullptr, nullptr, nullptr, forward_tile<8>},
    {nullptr, backward_tile<1>, backward_tile<2>, backward_tile<3>, backward_tile<4>, nullptr, nullptr, nullptr,
     backward_tile<8>},
    ssim_row,
    ssim_row_backward,
};

}  // namespace ffa
