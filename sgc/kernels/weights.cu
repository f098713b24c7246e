// Updates of many weights of equal size in one launch; `weights` is a table of their addresses.
#include "numbers.cuh"

// A few places of each weight, index (n, m), -1 is none.
// MODE 0: W[i] = round(W[i] - change);  1: target = decay W[i] - change;  2: W[i] = round(target).
#ifndef MODE
#define MODE 0
#endif

extern "C" __global__ void __launch_bounds__(256)
at_places(const unsigned long long* __restrict__ weights, const long long* __restrict__ index,
          const float* __restrict__ change, float* target, const long long* __restrict__ keys,
          const long long n, const long long m, const float decay) {
    const long long slot = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (slot >= n * m) return;
    const long long parameter = slot / m, place = index[slot];
    if (place < 0) return;
    raw* at = reinterpret_cast<raw*>(weights[parameter]) + place;
#if MODE == 1
    target[slot] = decay * number(*at) - change[slot];
#else
    const float x = MODE == 0 ? number(*at) - change[slot] : target[slot];
    *at = rounded(x, keys != nullptr, (unsigned)(keys ? keys[parameter] + place : 0));
#endif
}

// W = round(decay W - scale G), everywhere; G and scale may be null. `vector`: 16-byte accesses.
extern "C" __global__ void __launch_bounds__(256)
everywhere(const unsigned long long* __restrict__ weights,
           const unsigned long long* __restrict__ gradients, const float* __restrict__ scale,
           const long long* __restrict__ keys, const long long numel, const long long vector,
           const float decay) {
    const long long parameter = blockIdx.y;
    raw* w = reinterpret_cast<raw*>(weights[parameter]);
    const raw* g = gradients ? reinterpret_cast<const raw*>(gradients[parameter]) : nullptr;
    const float factor = g ? scale[parameter] : 0.0f;
    const unsigned key = keys ? (unsigned)keys[parameter] : 0u;
    const long long stride = (long long)gridDim.x * blockDim.x;
    const long long start = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long packs = vector ? numel / PACK : 0;
    for (long long i = start; i < packs; i += stride) {
        Pack a, b;
        a.whole = reinterpret_cast<const uint4*>(w)[i];
        if (g) b.whole = __ldcs(reinterpret_cast<const uint4*>(g) + i);
#pragma unroll
        for (int j = 0; j < PACK; ++j) {
            const float x = decay * number(a.each[j]) - (g ? factor * number(b.each[j]) : 0.0f);
            a.each[j] = rounded(x, keys != nullptr, key + (unsigned)(i * PACK + j));
        }
        reinterpret_cast<uint4*>(w)[i] = a.whole;
    }
    for (long long i = packs * PACK + start; i < numel; i += stride) {
        const float x = decay * number(w[i]) - (g ? factor * number(g[i]) : 0.0f);
        w[i] = rounded(x, keys != nullptr, key + (unsigned)i);
    }
}
