// Vectors of LANES floats on GCC's and Clang's vector extensions, plus the few operations that need intrinsics.
// Included by kernels.inl inside the namespace of one instruction set. Nothing here or there may come from the C++ standard
// library: the linker would merge such inline functions across instruction sets and a plain CPU could get the wide one.

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int IntVec __attribute__((vector_size(LANES * 4)));

static inline Vec all(float value) { return value - Vec{}; }
static inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }
static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

#if defined(__AVX512F__) && LANES == 16

typedef __mmask16 Mask;
static inline Mask ge(Vec a, Vec b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ); }
static inline Mask gt(Vec a, Vec b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
static inline Mask both(Mask a, Mask b) { return (Mask)(a & b); }
static inline Mask first_only(Mask a, Mask b) { return (Mask)(a & ~b); }
static inline bool any(Mask m) { return m != 0; }
static inline Vec keep(Mask m, Vec a) { return (Vec)_mm512_maskz_mov_ps(m, (__m512)a); }
static inline Vec choose(Mask m, Vec yes, Vec no) { return (Vec)_mm512_mask_mov_ps((__m512)no, m, (__m512)yes); }
static inline bool all_negative(Vec a) { return _mm512_movepi32_mask((__m512i)a) == 0xffff; }
static inline Vec negated_where(Mask m, Vec a) {  // for a of either sign: the sign bit is set where m
    return (Vec)_mm512_mask_or_epi32((__m512i)a, m, (__m512i)a, _mm512_set1_epi32((int)0x80000000));
}
static inline Vec root(Vec a) { return (Vec)_mm512_sqrt_ps((__m512)a); }

#else

typedef IntVec Mask;
static inline Mask ge(Vec a, Vec b) { return a >= b; }
static inline Mask gt(Vec a, Vec b) { return a > b; }
static inline Mask both(Mask a, Mask b) { return a & b; }
static inline Mask first_only(Mask a, Mask b) { return a & ~b; }
static inline Vec keep(Mask m, Vec a) { return (Vec)((IntVec)a & m); }
static inline Vec choose(Mask m, Vec yes, Vec no) { return (Vec)(((IntVec)yes & m) | ((IntVec)no & ~m)); }
static inline Vec negated_where(Mask m, Vec a) { return (Vec)((IntVec)a | (m & (int)0x80000000)); }

#if defined(__AVX2__) && LANES == 8
static inline bool any(Mask m) { return _mm256_movemask_ps((__m256)m) != 0; }
static inline bool all_negative(Vec a) { return _mm256_movemask_ps((__m256)a) == 0xff; }
static inline Vec root(Vec a) { return (Vec)_mm256_sqrt_ps((__m256)a); }
#elif defined(__SSE2__) && LANES == 4
static inline bool any(Mask m) { return _mm_movemask_ps((__m128)m) != 0; }
static inline bool all_negative(Vec a) { return _mm_movemask_ps((__m128)a) == 0xf; }
static inline Vec root(Vec a) { return (Vec)_mm_sqrt_ps((__m128)a); }
#elif defined(__aarch64__) && LANES == 4
static inline bool any(Mask m) { return vmaxvq_u32((uint32x4_t)m) != 0; }
static inline bool all_negative(Vec a) { return vmaxvq_s32((int32x4_t)a) < 0; }
static inline Vec root(Vec a) { return (Vec)vsqrtq_f32((float32x4_t)a); }
#else
static inline bool any(Mask m) {
    int bits = 0;
    for (int i = 0; i < LANES; ++i) bits |= m[i];
    return bits != 0;
}
static inline bool all_negative(Vec a) {
    int bits = -1;
    for (int i = 0; i < LANES; ++i) bits &= ((IntVec)a)[i];
    return bits < 0;
}
static inline Vec root(Vec a) {
    for (int i = 0; i < LANES; ++i) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
#endif
#endif

#if defined(__AVX512F__) && LANES == 16
static inline float total(Vec v) { return _mm512_reduce_add_ps((__m512)v); }
#elif defined(__AVX2__) && LANES == 8
static inline float total(Vec v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
#else
static inline float total(Vec v) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += v[i];
    return sum;
}
#endif

// totals[i] = sum of the lanes of v[i]
template <int COUNT>
static inline void store_totals(const Vec* v, float* totals) {
    int i = 0;
#if defined(__AVX2__) && LANES == 8
    // four at a time: two levels of pairwise sums, then the two halves
    for (; i + 4 <= COUNT; i += 4) {
        const __m256 low = _mm256_hadd_ps((__m256)v[i], (__m256)v[i + 1]);
        const __m256 high = _mm256_hadd_ps((__m256)v[i + 2], (__m256)v[i + 3]);
        const __m256 sums = _mm256_hadd_ps(low, high);
        _mm_storeu_ps(totals + i, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
    }
#endif
    for (; i < COUNT; ++i) totals[i] = total(v[i]);
}

// 2^(8 x) for x in [-1, 0] within 7e-7 relative: 2^x by a polynomial that is exact at 0 (fitted for least relative error,
// evaluated in pairs for a short chain of dependent steps), then squared three times.
static inline Vec exp2_of_8(Vec x) {
    const Vec x2 = x * x;
    const Vec high = 0.0009448992176f * x + 0.009205786874f, middle = 0.05529734812f * x + 0.2401801392f;
    Vec r = (high * x2 + middle) * x2 + (0.6931437207f * x + 1.0f);
    r = r * r;
    r = r * r;
    return r * r;
}
