// SSE on x86, NEON on ARM, plain code elsewhere.
#define KERNELS kernels_baseline
#if defined(__x86_64__) || defined(__i386__)
#define KERNELS_NAME "sse"
#elif defined(__aarch64__)
#define KERNELS_NAME "neon"
#else
#define KERNELS_NAME "generic"
#endif
#define LANES 4
#define BLOCK_W 4
#define BLOCK_H 1
#include "kernels.inl"
