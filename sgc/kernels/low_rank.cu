// Products of big half-precision matrices with thin factors, many matrices in one launch:
//   project   R = G B          (m x n)(n x r) -> m x r fp32: G is read once
//   lift      W = decay W - gain L Bᵀ - scale G    in place: W is read and written once
// DTYPE 0 or 1; factors in the same dtype, their rank padded with zeros to RANK, a multiple of 16.
#include "numbers.cuh"

#ifndef RANK
#define RANK 32
#endif

#if DTYPE == 0
#define OPERAND "bf16"
#else
#define OPERAND "f16"
#endif

__device__ __forceinline__ void mma16(float (&c)[4], const unsigned (&a)[4], const unsigned b0,
                                      const unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." OPERAND "." OPERAND
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Copies 16 bytes, or writes zeros.
__device__ __forceinline__ void fetch(const unsigned to, const void* from, const bool exists) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 ::"r"(to), "l"(from), "r"(exists ? 16 : 0));
}

constexpr int ROWS = 128, DEPTH = 64, STAGES = 3;
constexpr int PANEL_G = ROWS * DEPTH * 2, PANEL_B = DEPTH * RANK * 2;
constexpr int STAGE = PANEL_G + PANEL_B;
constexpr int PIECES = RANK / 8;  // 16-byte pieces of a row of B

__device__ __forceinline__ int place_g(const int row, const int piece) {
    return row * (DEPTH * 2) + ((piece ^ (row & 7)) << 4);
}

__device__ __forceinline__ int place_b(const int row, const int piece) {
    const int turn = PIECES >= 8 ? row & 7 : PIECES == 4 ? (row >> 1) & 3 : PIECES == 2 ? (row >> 2) & 1 : 0;
    return row * (RANK * 2) + ((piece ^ turn) << 4);
}

// Grid: tiles of 128 rows, matrices. Four warps of 32 rows; n must be a multiple of 8.
extern "C" __global__ void __launch_bounds__(128)
project(const unsigned long long* __restrict__ matrices, const raw* __restrict__ bases, float* out,
        const long long m, const long long n, const long long r) {
    extern __shared__ __align__(128) char stage_memory[];
    const unsigned memory = (unsigned)__cvta_generic_to_shared(stage_memory);
    const raw* G = reinterpret_cast<const raw*>(matrices[blockIdx.y]);
    const raw* B = bases + blockIdx.y * n * RANK;
    float* R = out + blockIdx.y * m * r;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long row0 = (long long)blockIdx.x * ROWS;
    const int steps = (int)((n + DEPTH - 1) / DEPTH);

    auto load = [&](const int step) {
        const unsigned to = memory + (step % STAGES) * STAGE;
        const long long k0 = (long long)step * DEPTH;
#pragma unroll
        for (int i = 0; i < ROWS * (DEPTH / 8) / 128; ++i) {
            const int piece = (threadIdx.x + i * 128) % (DEPTH / 8);
            const int row = (threadIdx.x + i * 128) / (DEPTH / 8);
            const bool exists = row0 + row < m && k0 + piece * 8 < n;
            fetch(to + place_g(row, piece), exists ? G + (row0 + row) * n + k0 + piece * 8 : G, exists);
        }
        for (int i = threadIdx.x; i < DEPTH * PIECES; i += 128) {
            const int row = i / PIECES, piece = i % PIECES;
            const bool exists = k0 + row < n;
            fetch(to + PANEL_G + place_b(row, piece), exists ? B + (k0 + row) * RANK + piece * 8 : B,
                  exists);
        }
    };

    float c[2][RANK / 8][4] = {};
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < steps) load(s);
        asm volatile("cp.async.commit_group;");
    }
    for (int step = 0; step < steps; ++step) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
        __syncthreads();
        if (step + STAGES - 1 < steps) load(step + STAGES - 1);
        asm volatile("cp.async.commit_group;");
        const unsigned here = memory + (step % STAGES) * STAGE;
#pragma unroll
        for (int k = 0; k < DEPTH / 16; ++k) {
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const unsigned from = here + place_g(32 * warp + 16 * i + lane % 16, 2 * k + lane / 16);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                             : "=r"(a[i][0]), "=r"(a[i][1]), "=r"(a[i][2]), "=r"(a[i][3]) : "r"(from));
            }
#pragma unroll
            for (int j = 0; j < RANK / 16; ++j) {
                unsigned b[4];
                const unsigned from = here + PANEL_G + place_b(16 * k + lane % 16, 2 * j + lane / 16);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                             : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(from));
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma16(c[i][2 * j], a[i], b[0], b[1]);
                    mma16(c[i][2 * j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }
    asm volatile("cp.async.wait_all;");

    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < RANK / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const long long row = row0 + 32 * warp + 16 * i + g + 8 * (e / 2);
                const int column = 8 * j + 2 * t + e % 2;
                if (row < m && column < r) R[row * r + column] = c[i][j][e];
            }
}

// Grid: tiles of 32 columns a warp, shares of the rows, matrices; n must be a multiple of 8. A warp
// keeps its 32 rows of B and walks down L and W. Column 8 t + 2 j + e of the 32 is computed as column
// 2 t + e of tensor-core tile j, so that a lane owns eight neighbours; and the terms of a product are
// taken in an order in which a lane's share of a factor's row is one piece. So all accesses are wide.
// MOVED: with the term scale G. LOT: round by lot.
#ifndef MOVED
#define MOVED 0
#endif
#ifndef LOT
#define LOT 0
#endif
constexpr int WARPS = 8, LIFT_STAGES = 6, WORDS = RANK / 8;  // 32-bit words of a row that a lane has

__device__ __forceinline__ void read_share(unsigned (&f)[WORDS], const raw* row, const int t) {
    if (WORDS == 2) {
        const uint2 v = __ldg(reinterpret_cast<const uint2*>(row) + t);
        f[0] = v.x; f[1] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i + 3 < WORDS; i += 4) {
            const uint4 v = __ldg(reinterpret_cast<const uint4*>(row) + i + t);
            f[i] = v.x; f[i + 1] = v.y; f[i + 2] = v.z; f[i + 3] = v.w;
        }
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
lift(const unsigned long long* __restrict__ weights, const unsigned long long* __restrict__ gradients,
     const raw* __restrict__ left, const raw* __restrict__ right, const float* __restrict__ scale,
     const long long* __restrict__ keys, const long long m, const long long n_, const long long share,
     const float gain, const float decay) {
    // A lane copies what it will need itself, AHEAD tiles of 16 rows before: nobody waits for others.
    extern __shared__ uint4 ring[];
    constexpr int AHEAD = LIFT_STAGES - 1, KINDS = MOVED ? 4 : 2;
    const long long matrix = blockIdx.z, start = blockIdx.y * share;
    const int n = (int)n_, tiles = (int)((min(m, start + share) - start + 15) / 16);
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int column0 = (blockIdx.x * WARPS + threadIdx.x / 32) * 32, column = column0 + 8 * t;
    if (column0 >= n) return;
    const bool inside = column < n;
    const int rows = (int)(min(m, start + share) - start);
    const long long corner = start * n + column;
    raw* W = reinterpret_cast<raw*>(weights[matrix]) + corner;
    const raw* G = MOVED ? reinterpret_cast<const raw*>(gradients[matrix]) + corner : nullptr;
    const raw* L = left + (matrix * m + start) * RANK;
    const raw* B = right + matrix * n * RANK;
    const float factor = MOVED ? scale[matrix] : 0.0f;
    const unsigned key = LOT ? (unsigned)keys[matrix] + (unsigned)corner : 0u;

    unsigned b[4][WORDS];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const int mine = column0 + (g / 2) * 8 + 2 * j + g % 2;
        read_share(b[j], B + (long long)min(mine, n - 1) * RANK, t);
    }
    const unsigned ring0 = (unsigned)__cvta_generic_to_shared(ring + threadIdx.x);
    auto slot = [&](const int tile, const int kind) {
        return ((tile % LIFT_STAGES) * KINDS + kind) * (32 * WARPS);
    };
    auto load = [&](const int tile) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = 16 * tile + g + 8 * h;
            if (row < rows && inside) {
                fetch(ring0 + 16 * slot(tile, h), W + (long long)row * n, true);
                if (MOVED) fetch(ring0 + 16 * slot(tile, 2 + h), G + (long long)row * n, true);
            }
        }
    };
#pragma unroll
    for (int tile = 0; tile < AHEAD; ++tile) {
        if (tile < tiles) load(tile);
        asm volatile("cp.async.commit_group;");
    }
    for (int tile = 0; tile < tiles; ++tile) {
        unsigned a[2][WORDS];
#pragma unroll
        for (int h = 0; h < 2; ++h)
            read_share(a[h], L + (long long)min(16 * tile + g + 8 * h, rows - 1) * RANK, t);
        float c[4][4] = {};
#pragma unroll
        for (int k = 0; k < WORDS; k += 2) {
            const unsigned fragment[4] = {a[0][k], a[1][k], a[0][k + 1], a[1][k + 1]};
#pragma unroll
            for (int j = 0; j < 4; ++j) mma16(c[j], fragment, b[j][k], b[j][k + 1]);
        }
        asm volatile("cp.async.wait_group %0;" ::"n"(AHEAD - 1));
        Pack w[2], x[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            w[h].whole = ring[slot(tile, h) + threadIdx.x];
            if (MOVED) x[h].whole = ring[slot(tile, 2 + h) + threadIdx.x];
        }
        if (tile + AHEAD < tiles) load(tile + AHEAD);
        asm volatile("cp.async.commit_group;");
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = 16 * tile + g + 8 * h;
            if (row >= rows || !inside) continue;
            const long long at = (long long)row * n;
#pragma unroll
            for (int i = 0; i < PACK; ++i) {
                float y = decay * number(w[h].each[i]) - gain * c[i / 2][2 * h + i % 2];
                if (MOVED) y -= factor * number(x[h].each[i]);
                w[h].each[i] = rounded(y, LOT, key + (unsigned)at + i);
            }
            __stcs(reinterpret_cast<uint4*>(W + at), w[h].whole);
        }
    }
}
