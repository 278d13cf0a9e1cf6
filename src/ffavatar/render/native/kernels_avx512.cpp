#if defined(__AVX512F__)
#define KERNELS kernels_avx512
#define KERNELS_NAME "avx512"
#define LANES 16
#define BLOCK_W 4
#define BLOCK_H 4
#include "kernels.inl"
#endif
