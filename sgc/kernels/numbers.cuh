// Weights and gradients of three dtypes as float, and back. DTYPE: 0 bf16, 1 fp16, 2 fp32.
#ifndef DTYPE
#define DTYPE 0
#endif

#if DTYPE == 2
typedef unsigned raw;
constexpr unsigned MAGNITUDE = 0x7fffffffu;
#else
typedef unsigned short raw;
constexpr unsigned MAGNITUDE = 0x7fffu;
#endif
constexpr int PACK = 16 / sizeof(raw);  // numbers of one 16-byte access

__device__ __forceinline__ float number(const raw x) {
#if DTYPE == 0
    return __uint_as_float((unsigned)x << 16);
#elif DTYPE == 1
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
#else
    return __uint_as_float(x);
#endif
}

// lowbias32 (C. Wellons): what sgc/hashing.py computes in torch.
__device__ __forceinline__ unsigned lowbias32(unsigned h) {
    h ^= h >> 16; h *= 0x7feb352du;
    h ^= h >> 15; h *= 0x846ca68bu;
    return h ^ (h >> 16);
}

// To the nearest; for bf16 with `by_lot`, up or down so that the mean is x: see sgc/rounding.py.
__device__ __forceinline__ raw rounded(const float x, const bool by_lot, const unsigned counter) {
#if DTYPE == 0
    if (by_lot && isfinite(x)) {
        return (raw)((__float_as_uint(x) + (lowbias32(counter) >> 16)) >> 16);
    }
    raw y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#elif DTYPE == 1
    raw y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    return __float_as_uint(x);
#endif
}

union Pack {
    uint4 whole;
    raw each[PACK];
};
