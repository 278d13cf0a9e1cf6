#if defined(__AVX2__)
#define KERNELS kernels_avx2
#define KERNELS_NAME "avx2"
#define LANES 8
#define BLOCK_W 4
#define BLOCK_H 2
#include "kernels.inl"
#endif
