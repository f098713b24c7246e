// Which group of 128 atoms holds the largest |correlation| of each signal, for k <= 16.
//
// Every warp keeps the measurements of 64 signals in registers as tensor-core fragments and
// streams all atoms past them: batch x d correlations are made, compared and forgotten there.
// Operands are rows of fp16 parts (see pursue.cu): a plain fp16 product of the parts is an fp32
// or an 11-bit product of the numbers. Atoms come in fragment order: [32 atoms][KB][lane][4].
//
// KB: parts of a signal / 8.
#ifndef KB
#define KB 3
#endif

constexpr int MT = 4;  // tiles of 16 signals a warp
constexpr int WARPS = 4;
constexpr int GROUP = 128;

typedef unsigned long long u64;

__device__ __forceinline__ void mma16(float (&c)[4], const unsigned* a, const unsigned b0,
                                      const unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma8(float (&c)[4], const unsigned* a, const unsigned b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
}

// best[row] becomes max(best[row], |correlation| bits << 32 | ~group): the earliest group on ties.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 4)
correlate_few(const uint4* __restrict__ atoms, const unsigned* __restrict__ signals, u64* best,
              const long long batch, const long long groups, const long long groups_per_block) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const long long row0 = ((long long)blockIdx.x * WARPS + threadIdx.x / 32) * (16 * MT);
    if (row0 >= batch) return;

    unsigned a[MT][2 * KB];
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int kb = 0; kb < KB; ++kb)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const long long row = row0 + 16 * m + 8 * h + g;
                a[m][2 * kb + h] = row < batch ? signals[row * (4 * KB) + 4 * kb + t] : 0u;
            }

    float top[2 * MT];
    int where[2 * MT];
#pragma unroll
    for (int r = 0; r < 2 * MT; ++r) { top[r] = 0.0f; where[r] = 0; }

    const long long first = blockIdx.y * groups_per_block;
    const long long last = min(groups, first + groups_per_block);
    const uint4* next = atoms + first * (GROUP / 32) * KB * 32 + lane;
    for (long long group = first; group < last; ++group) {
        float here[2 * MT];
#pragma unroll
        for (int r = 0; r < 2 * MT; ++r) here[r] = top[r];
#pragma unroll(KB <= 3 ? 4 : 1)
        for (int tile = 0; tile < GROUP / 32; ++tile, next += KB * 32) {
            unsigned b[KB][4];
#pragma unroll
            for (int kb = 0; kb < KB; ++kb) {
                const uint4 four = __ldg(next + kb * 32);
                b[kb][0] = four.x; b[kb][1] = four.y; b[kb][2] = four.z; b[kb][3] = four.w;
            }
#pragma unroll
            for (int e = 0; e < 4; ++e) {
#pragma unroll
                for (int m = 0; m < MT; ++m) {
                    float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
                    for (int kb = 0; kb + 1 < KB; kb += 2)
                        mma16(c, a[m] + 2 * kb, b[kb][e], b[kb + 1][e]);
                    if (KB % 2) mma8(c, a[m] + 2 * (KB - 1), b[KB - 1][e]);
                    here[2 * m] = fmaxf(fmaxf(here[2 * m], fabsf(c[0])), fabsf(c[1]));
                    here[2 * m + 1] = fmaxf(fmaxf(here[2 * m + 1], fabsf(c[2])), fabsf(c[3]));
                }
            }
        }
#pragma unroll
        for (int r = 0; r < 2 * MT; ++r)
            if (here[r] > top[r]) { top[r] = here[r]; where[r] = (int)group; }
    }

#pragma unroll
    for (int r = 0; r < 2 * MT; ++r) {
        u64 key = top[r] > 0.0f
            ? ((u64)__float_as_uint(top[r]) << 32) | (0xffffffffu - (unsigned)where[r]) : 0ull;
        key = max(key, __shfl_xor_sync(0xffffffffu, key, 1));  // the four lanes of a row
        key = max(key, __shfl_xor_sync(0xffffffffu, key, 2));
        const long long row = row0 + 16 * (r / 2) + 8 * (r % 2) + g;
        if (t == 0 && row < batch && key) atomicMax(best + row, key);
    }
}
