// One step of orthogonal matching pursuit after the correlation: one warp a signal.
//
//   begin   brings rows to norm one and splits them into fp16 parts for the first correlation
//   pursue  takes the winning atom, orthogonalises it (modified Gram-Schmidt in blocks of four
//           vectors, a second pass where the first cancelled), and updates residual and parts
//   finish  solves the triangular system for the values and scales them back
//
// The correlations run on fp16 parts. A vector is scaled to norm 2^11; hi = fp16(x), lo = fp16(x - hi).
//
// parts = 3 (FEW, float32): rows of signals hold (hi, lo, hi), those of atoms (hi, hi, lo), so one long
// fp16 product of the two, accumulated in fp32, is hi hi + lo hi + hi lo: fp32's product to 2^-22.
// parts = 1: hi alone, 11 bits as TF32 has. Its error is at most `margin` / 2, so the true winner is
// among the atoms within `margin` of the largest; float32 precision (MANY) compares those again.
//
// REGS: numbers of a vector a lane keeps, 32 REGS >= k. FEW: the winner is a group of 128 atoms
// (correlate_few.cu) in which the best one is found here, in fp32.
#ifndef REGS
#define REGS 8
#endif
#ifndef FEW
#define FEW 0
#endif

typedef unsigned long long u64;
#if FEW
typedef u64 KEYS;
#else
typedef unsigned KEYS;
#endif

constexpr int WARPS = 4;
constexpr unsigned ALL = 0xffffffffu;
// As in recovery/result.py.
constexpr int RUNNING = -1, CONVERGED = 0, SPARSITY_REACHED = 1, ZERO_SIGNAL = 2, NON_FINITE = 3,
              DEPENDENT_ATOMS = 4, SATURATED = 5;
constexpr float SCALE = 2048.0f, SMALLEST = 1e-30f;

typedef unsigned short half_bits;

__device__ __forceinline__ half_bits to_half(const float x) {
    half_bits h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

__device__ __forceinline__ float from_half(const half_bits h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

__device__ __forceinline__ float sum(float x) {
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) x += __shfl_xor_sync(ALL, x, offset);
    return x;
}

__device__ __forceinline__ void read(float (&v)[REGS], const float* from, const int k, const int lane) {
#pragma unroll
    for (int u = 0; u < REGS; ++u) v[u] = 32 * u + lane < k ? from[32 * u + lane] : 0.0f;
}

__device__ __forceinline__ void write(float* to, const float (&v)[REGS], const int k, const int lane) {
#pragma unroll
    for (int u = 0; u < REGS; ++u)
        if (32 * u + lane < k) to[32 * u + lane] = v[u];
}

__device__ __forceinline__ float dot(const float (&x)[REGS], const float (&y)[REGS]) {
    float total = 0.0f;
#pragma unroll
    for (int u = 0; u < REGS; ++u) total += x[u] * y[u];
    return total;
}

// The parts of 2^11 r / norm: a residual of any size has parts of full accuracy.
__device__ void split(half_bits* to, const float (&r)[REGS], const float norm, const int k,
                      const int parts, const int lane) {
    const float up = norm > SMALLEST ? SCALE / norm : 0.0f;
#pragma unroll
    for (int u = 0; u < REGS; ++u) {
        const int j = 32 * u + lane;
        if (j < k) {
            const float x = r[u] * up;
            const half_bits hi = to_half(x);
            to[j] = hi;
            if (parts == 3) {
                to[k + j] = to_half(x - from_half(hi));
                to[2 * k + j] = hi;
            }
        }
    }
}

// Rows of norm one from rows of any size; what was divided out; which rows there is nothing to do for.
// The largest entry is first brought near one by a power of two, which is exact.
__device__ int normalise(float* to, float* scale, const float* from, float (&r)[REGS], const int k,
                         const int lane) {
    read(r, from, k, lane);
    float largest = 0.0f;
    bool finite = true;
#pragma unroll
    for (int u = 0; u < REGS; ++u) {
        finite = finite && isfinite(r[u]);
        largest = fmaxf(largest, fabsf(r[u]));
    }
#pragma unroll
    for (int offset = 16; offset; offset >>= 1)
        largest = fmaxf(largest, __shfl_xor_sync(ALL, largest, offset));
    finite = __all_sync(ALL, finite);
    const int exponent = finite && largest > 0.0f ? ilogbf(largest) : 0;
#pragma unroll
    for (int u = 0; u < REGS; ++u) r[u] = finite ? scalbnf(r[u], -exponent) : 0.0f;
    const float norm = sqrtf(sum(dot(r, r)));
    const float whole = scalbnf(norm, exponent);
    finite = finite && isfinite(whole);
    const float inverse = finite && norm > 0.0f ? 1.0f / norm : 0.0f;
#pragma unroll
    for (int u = 0; u < REGS; ++u) r[u] *= inverse;
    write(to, r, k, lane);
    if (lane == 0) *scale = finite ? whole : nanf("");
    return !finite ? NON_FINITE : norm > 0.0f ? RUNNING : ZERO_SIGNAL;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
begin(const float* __restrict__ y, const float* __restrict__ companion, float* residual, float* rest,
      float* scale, float* rest_scale, half_bits* signals, KEYS* keys, unsigned* taken,
      long long* support, long long* status, const long long batch, const long long k,
      const long long width, const long long words, const long long sparsity,
      const long long parts) {
    const long long row = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= batch) return;
    const int lane = threadIdx.x % 32;
    float r[REGS];
    if (companion) normalise(rest + row * k, rest_scale + row, companion + row * k, r, (int)k, lane);
    const int state = normalise(residual + row * k, scale + row, y + row * k, r, (int)k, lane);
    half_bits* mine = signals + row * width;
    split(mine, r, state == RUNNING ? 1.0f : 0.0f, (int)k, (int)parts, lane);
    for (int j = (int)(parts * k) + lane; j < width; j += 32) mine[j] = 0;
    if (taken) for (int j = lane; j < words; j += 32) taken[row * words + j] = 0u;
    for (int j = lane; j < sparsity; j += 32) support[row * sparsity + j] = -1;
    if (lane == 0) {
        status[row] = state;
#if FEW
        keys[row] = 0ull;
#endif
    }
}

#if FEW
constexpr int GROUP = 128;

// The best free atom of a group, in fp32; -1 where all are taken or orthogonal to r.
__device__ int best_of_group(const float* __restrict__ atoms, const float r, const long long group,
                             const long long* support, const int step, const int k,
                             const long long d, const int lane) {
    float top = 0.0f;
    int found = -1;
    float c[GROUP / 32] = {};
    for (int j = 0; j < k; ++j) {
        const float rj = __shfl_sync(ALL, r, j);
#pragma unroll
        for (int u = 0; u < GROUP / 32; ++u) {
            const long long atom = group * GROUP + 32 * u + lane;
            if (atom < d) c[u] += atoms[atom * k + j] * rj;
        }
    }
#pragma unroll
    for (int u = 0; u < GROUP / 32; ++u) {
        const long long atom = group * GROUP + 32 * u + lane;
        bool free = atom < d;
        for (int i = 0; i < step; ++i) free = free && support[i] != atom;
        if (free && fabsf(c[u]) > top) { top = fabsf(c[u]); found = 32 * u + lane; }
    }
    u64 key = found < 0 ? 0ull : ((u64)__float_as_uint(top) << 32) | (unsigned)(GROUP - found);
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) key = max(key, __shfl_xor_sync(ALL, key, offset));
    return key ? (int)(group * GROUP) + GROUP - (int)(key & 0xffffffffu) : -1;
}
#else
constexpr unsigned PLACE = 31u;  // the bits of a key that name one of 32 atoms

__device__ __forceinline__ float magnitude(const unsigned key) { return __uint_as_float(key & ~PLACE); }

// The best free atom of all, from the two largest correlations of every 32; -1 where all that is left
// is orthogonal to r.
__device__ long long best_of_groups(const float* __restrict__ atoms, const float* r_,
                                    const unsigned* keys, const unsigned* seconds,
                                    const unsigned* taken, const int groups, const float margin,
                                    const int k, const long long d, const int lane) {
    u64 top = 0ull;
    for (int g = lane; g < groups; g += 32) {
        const unsigned key = keys[g], atom = 32 * g + PLACE - (key & PLACE);
        if (key & ~PLACE) top = max(top, ((u64)(key & ~PLACE) << 32) | (ALL - atom));
    }
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) top = max(top, __shfl_xor_sync(ALL, top, offset));
    if (!top && margin <= 0.0f) return -1;
    const float least = __uint_as_float((unsigned)(top >> 32)) - margin;
    int contenders = 0;
    for (int g = lane; g < groups; g += 32)
        contenders += (magnitude(keys[g]) >= least) + (magnitude(seconds[g]) >= least);
    // So little correlates that 11 bits may have lost the best of it: all atoms are looked at again.
    const bool every = least <= 0.0f;
    if (margin <= 0.0f || (!every && __reduce_add_sync(ALL, contenders) == 1))
        return ALL - (unsigned)top;

    float r[REGS];
    read(r, r_, k, lane);
    u64 best = 0ull;
    auto compare = [&](const long long first, const int many) {  // up to four neighbours
        float c[4];
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            float a[REGS];
            read(a, atoms + (first + min(b, many - 1)) * k, k, lane);
            c[b] = dot(a, r);
        }
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            const long long atom = first + b;
            const u64 key = ((u64)__float_as_uint(fabsf(sum(c[b]))) << 32) | (ALL - (unsigned)atom);
            if (b < many && !(taken[atom / 32] >> (atom % 32) & 1u)) best = max(best, key);
        }
    };
    for (int first = 0; first < groups; first += 32) {
        const int g = first + lane;
        const unsigned key = g < groups ? keys[g] : 0u;
        const bool two = g < groups && (every || magnitude(seconds[g]) >= least);
        const unsigned more = __ballot_sync(ALL, two);
        unsigned left = __ballot_sync(ALL, two || (key & ~PLACE && magnitude(key) >= least));
        for (; left; left &= left - 1) {
            const int source = __ffs(left) - 1;
            const long long start = 32ll * (first + source);
            const unsigned place = PLACE - (__shfl_sync(ALL, key, source) & PLACE);
            if (more >> source & 1u)
                for (int j = 0; j < 32 && start + j < d; j += 4)
                    compare(start + j, (int)min(4ll, d - start - j));
            else
                compare(start + place, 1);
        }
    }
    return best >> 32 ? (long long)(ALL - (unsigned)best) : -1;
}
#endif

extern "C" __global__ void __launch_bounds__(32 * WARPS, REGS <= 8 ? 8 : 1)
pursue(const long long step_, const float* __restrict__ atoms, KEYS* keys, const unsigned* seconds,
       float* residual, float* rest,
       half_bits* signals, float* basis, float* triangle, float* weights, float* rest_weights,
       unsigned* taken, long long* support, long long* status, const long long batch,
       const long long k_, const long long d, const long long width, const long long words,
       const long long steps, const long long sparsity, const long long parts,
       const float tolerance, const float dependence, const float margin) {
    const long long row = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= batch) return;
    const int lane = threadIdx.x % 32, k = (int)k_, step = (int)step_;
    const bool running = status[row] == RUNNING;
#if FEW
    const u64 key = keys[row];
    __syncwarp();
    if (lane == 0) keys[row] = 0ull;  // ready for the next correlation
    if (!running) return;
    const float mine_of_r = lane < k ? residual[row * k + lane] : 0.0f;
    const long long atom = !key ? -1 :
        best_of_group(atoms, mine_of_r, 0xffffffffu - (unsigned)key, support + row * sparsity, step, k,
                      d, lane);
#else
    if (!running) return;
    const long long atom = best_of_groups(atoms, residual + row * k, keys + row * words,
                                          seconds + row * words, taken + row * words, (int)words,
                                          margin, k, d, lane);
#endif
    if (atom < 0) {  // every free atom is orthogonal to what is left
        if (lane == 0) status[row] = DEPENDENT_ATOMS;
        return;
    }

    float v[REGS];
    read(v, atoms + atom * k, k, lane);
    const float* mine = basis + row * steps * k;
    float* overlaps = triangle + (row * steps + step) * steps;
    float length = 1.0f;
    for (int pass = 0; pass < 2; ++pass) {
        for (int i = 0; i < step; i += 4) {
            float q[4][REGS], o[4];
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                if (i + b < step) {
                    read(q[b], mine + (long long)(i + b) * k, k, lane);
                } else {
#pragma unroll
                    for (int u = 0; u < REGS; ++u) q[b][u] = 0.0f;
                }
            }
#pragma unroll
            for (int b = 0; b < 4; ++b) o[b] = dot(q[b], v);
#pragma unroll
            for (int b = 0; b < 4; ++b) o[b] = sum(o[b]);
#pragma unroll
            for (int b = 0; b < 4; ++b)
#pragma unroll
                for (int u = 0; u < REGS; ++u) v[u] -= o[b] * q[b][u];
            const float own = lane == 0 ? o[0] : lane == 1 ? o[1] : lane == 2 ? o[2] : o[3];
            if (lane < 4 && i + lane < step)
                overlaps[i + lane] = own + (pass ? overlaps[i + lane] : 0.0f);
        }
        length = sqrtf(sum(dot(v, v)));
        if (length >= 0.7f) break;  // nothing was lost to cancellation
    }
    if (length <= dependence) {
        if (lane == 0) status[row] = DEPENDENT_ATOMS;
        return;
    }

    const float inverse = 1.0f / length;
#pragma unroll
    for (int u = 0; u < REGS; ++u) v[u] *= inverse;
    if (step + 1 < steps) write(basis + (row * steps + step) * k, v, k, lane);
    float r[REGS];
    read(r, residual + row * k, k, lane);
    const float weight = sum(dot(v, r));
#pragma unroll
    for (int u = 0; u < REGS; ++u) r[u] -= weight * v[u];
    const float norm = sqrtf(sum(dot(r, r)));
    write(residual + row * k, r, k, lane);
    if (step + 1 < steps) split(signals + row * width, r, norm, k, (int)parts, lane);

    float rest_weight = 0.0f;
    if (rest) {
        read(r, rest + row * k, k, lane);
        rest_weight = sum(dot(v, r));
#pragma unroll
        for (int u = 0; u < REGS; ++u) r[u] -= rest_weight * v[u];
        write(rest + row * k, r, k, lane);
    }
    if (lane == 0) {
        weights[row * steps + step] = weight;
        if (rest) rest_weights[row * steps + step] = rest_weight;
        overlaps[step] = length;
        support[row * sparsity + step] = atom;
        if (taken) taken[row * words + atom / 32] |= 1u << (atom % 32);
        if (norm <= tolerance) status[row] = CONVERGED;
    }
}

// R x = Qᵀ y by back substitution, R's column i in triangle[row][i]; the same for the companion.
// iterations: atoms in use.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
finish(const float* __restrict__ residual, const float* __restrict__ triangle,
       const float* __restrict__ weights, const float* __restrict__ rest_weights,
       const float* __restrict__ scale, const float* __restrict__ rest_scale,
       const float* __restrict__ inverse_norms, const long long* __restrict__ support,
       float* values, float* rest_values, float* residual_norm, long long* status,
       long long* iterations, const long long batch, const long long k, const long long steps,
       const long long sparsity) {
    extern __shared__ float memory[];
    const long long row = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= batch) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long* chosen = support + row * sparsity;
    int used = 0;
    for (int i = lane; i < steps; i += 32) used += chosen[i] >= 0;
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) used += __shfl_xor_sync(ALL, used, offset);

    float* x = memory + warp * steps;
    for (int which = 0; which < (rest_values ? 2 : 1); ++which) {
        const float* right = (which ? rest_weights : weights) + row * steps;
        const float size = (which ? rest_scale : scale)[row];
        float* to = (which ? rest_values : values) + row * sparsity;
        for (int i = lane; i < used; i += 32) x[i] = right[i];
        __syncwarp();
        for (int i = used - 1; i >= 0; --i) {
            const float* column = triangle + (row * steps + i) * steps;
            const float xi = x[i] / column[i];
            __syncwarp();
            for (int j = lane; j < i; j += 32) x[j] -= column[j] * xi;
            if (lane == 0) x[i] = xi;
            __syncwarp();
        }
        const float unused = which && isnan(size) ? size : 0.0f;
        for (int i = lane; i < sparsity; i += 32)
            to[i] = i < used ? x[i] * inverse_norms[chosen[i]] * size : unused;
        __syncwarp();
    }

    float total = 0.0f;
    for (int j = lane; j < k; j += 32) total += residual[row * k + j] * residual[row * k + j];
    total = sqrtf(sum(total)) * scale[row];
    if (lane == 0) {
        residual_norm[row] = total;
        iterations[row] = used;
        if (status[row] == RUNNING) status[row] = SPARSITY_REACHED;
        if (used == k) status[row] = SATURATED;
    }
}
