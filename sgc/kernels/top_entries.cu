// The S entries of each chunk that are largest in magnitude, of many gradients in one launch; each
// gradient is read once. NaN compares as the largest.
//
// A candidate is a key: magnitude bits << 32 | ~place in the chunk, so that the largest key is the
// largest entry, the earliest on ties; 0 is none. A block scans a share of a gradient and writes the
// candidates of its share; the host side takes the largest.
#include "numbers.cuh"

#ifndef S
#define S 1
#endif

typedef unsigned long long u64;
constexpr int THREADS = 256;
constexpr int AHEAD = 8;  // loads in flight a thread

// Sums of squares at three scales: squares of small and of large numbers leave float32.
struct Energy {
    float plain = 0.0f, lifted = 0.0f, lowered = 0.0f;
    __device__ __forceinline__ void add(const float x) {
        const float up = x * 0x1p96f, down = x * 0x1p-70f;
        plain += x * x;
        lifted += up * up;
        lowered += down * down;
    }
    // The plain sum where it is well inside float32's range; NaN by any way.
    __device__ double value() const {
        if (plain > 0x1p100f) return (double)lowered * 0x1p140;
        return plain <= 0x1p-80f ? (double)lifted * 0x1p-192 : (double)plain;
    }
};

struct Largest {
    unsigned magnitude[S];
    unsigned place[S];
    __device__ Largest() {
#pragma unroll
        for (int i = 0; i < S; ++i) magnitude[i] = place[i] = 0u;
    }
    __device__ __forceinline__ void offer(const unsigned m, const unsigned at) {
        if (m > magnitude[S - 1]) {
            magnitude[S - 1] = m;
            place[S - 1] = at;
#pragma unroll
            for (int i = S - 1; i > 0; --i)
                if (magnitude[i] > magnitude[i - 1]) {
                    const unsigned om = magnitude[i - 1], op = place[i - 1];
                    magnitude[i - 1] = magnitude[i]; place[i - 1] = place[i];
                    magnitude[i] = om; place[i] = op;
                }
        }
    }
    __device__ u64 key(const int i) const {
        return magnitude[i] ? ((u64)magnitude[i] << 32) | (0xffffffffu - place[i]) : 0ull;
    }
};

__device__ void store_energy(const Energy& mine, double* to) {
    __shared__ double totals[THREADS / 32];
    double total = mine.value();
#pragma unroll
    for (int offset = 16; offset; offset >>= 1) total += __shfl_xor_sync(0xffffffffu, total, offset);
    if (threadIdx.x % 32 == 0) totals[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < THREADS / 32; ++w) total += totals[w];
        *to = total;
    }
}

// How far the group of c entries is turned when it is dealt out: sgc/chunkers/base.py.
__device__ __forceinline__ int turn_of(const long long group, const long long multiply,
                                       const long long add, const long long chunks) {
    const unsigned hash = lowbias32((unsigned)group * (unsigned)multiply + (unsigned)add);
    return multiply ? (int)(hash % (unsigned)chunks) : 0;
}

// Chunks dealt out: entry i goes to place i / c of chunk (i + turn(i / c)) mod c. A thread scans
// one chunk; the threads of a warp read neighbours. Grid: shares, tiles of 256 chunks, gradients.
extern "C" __global__ void __launch_bounds__(THREADS)
top_dealt(const u64* __restrict__ gradients, const long long multiply, const long long add,
          u64* candidates, double* energy, const long long numel, const long long chunks_, const long long length_,
          const long long share_, const long long per_chunk) {
    extern __shared__ int turn[];
    const int chunks = (int)chunks_, length = (int)length_, share = (int)share_;
    const int first = blockIdx.x * share, last = min(length, first + share);
    for (int g = first + threadIdx.x; g < last; g += THREADS)
        turn[g - first] = turn_of(g, multiply, add, chunks);
    __syncthreads();

    const int width = min(chunks, THREADS), lanes = THREADS / width;
    const int lane = threadIdx.x / width, q = blockIdx.y * width + threadIdx.x % width;
    const raw* gradient = reinterpret_cast<const raw*>(gradients[blockIdx.z]);
    const bool mine = lane < lanes && q < chunks;
    Largest top;
    Energy sum;
    for (int g = first + lane; mine && g < last; g += lanes * AHEAD) {
        raw x[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
            const int at = g + u * lanes;
            x[u] = 0;
            if (at < last) {
                int o = q - turn[at - first];
                o += o < 0 ? chunks : 0;
                const long long i = (long long)at * chunks + o;
                if (i < numel) x[u] = gradient[i];
            }
        }
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
            top.offer(x[u] & MAGNITUDE, (unsigned)(g + u * lanes));
            if (energy) sum.add(number(x[u]));
        }
    }
    if (mine) {
        u64* to = candidates + ((long long)blockIdx.z * chunks + q) * per_chunk
                  + ((long long)blockIdx.x * lanes + lane) * S;
#pragma unroll
        for (int i = 0; i < S; ++i) to[i] = top.key(i);
    }
    if (energy) store_energy(sum, energy + (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
}

// The same for S = 1 and c a multiple of PACK, with 16-byte loads. A thread scans the chunks PACK u
// to PACK u + PACK - 1: in each group they are a window of PACK neighbours, turned as the
// group is, which two aligned packs hold. Winners of a block meet in shared memory.
#if DTYPE == 2
typedef u64 Winner;  // magnitude << 32 | ~place
#else
typedef unsigned Winner;  // magnitude << 16 | ~(place - first place of the block)
#endif
constexpr int PLACES = 8 * sizeof(Winner) / 2;
constexpr Winner PLACE_MASK = ((Winner)1 << PLACES) - 1;

// The window that begins `skip` numbers into two packs.
__device__ __forceinline__ Pack window(const Pack& a, const Pack& b, const int skip) {
    unsigned w[8] = {a.whole.x, a.whole.y, a.whole.z, a.whole.w, b.whole.x, b.whole.y, b.whole.z, b.whole.w};
    const int words = DTYPE == 2 ? skip : skip / 2;
#pragma unroll
    for (int i = 0; i < 6; ++i) w[i] = words & 2 ? w[i + 2] : w[i];
#pragma unroll
    for (int i = 0; i < 5; ++i) w[i] = words & 1 ? w[i + 1] : w[i];
    if (DTYPE != 2) {
        const int bits = skip & 1 ? 16 : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) w[i] = __funnelshift_r(w[i], w[i + 1], bits);
    }
    Pack out;
    out.whole = make_uint4(w[0], w[1], w[2], w[3]);
    return out;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
top_dealt_packed(const u64* __restrict__ gradients, const long long multiply, const long long add,
                 u64* candidates, double* energy, const long long chunks_, const long long length_,
                 const long long share_) {
    extern __shared__ __align__(16) char shared[];
    const int chunks = (int)chunks_, length = (int)length_, share = (int)share_;
    Winner* found = reinterpret_cast<Winner*>(shared);  // c
    int* turn = reinterpret_cast<int*>(found + chunks);  // share
    const int packs = chunks / PACK, lanes = THREADS / packs;
    const int first = blockIdx.x * share, last = min(length, first + share);
    const int u = threadIdx.x % packs, lane = threadIdx.x / packs;
    for (int q = threadIdx.x; q < chunks; q += THREADS) found[q] = 0;
    for (int g = first + threadIdx.x; g < last; g += THREADS)
        turn[g - first] = turn_of(g, multiply, add, chunks);
    __syncthreads();

    const uint4* gradient = reinterpret_cast<const uint4*>(gradients[blockIdx.z]);
    Winner best[PACK] = {};
    Energy sum;
    constexpr int LOADS = 4;
    for (int g = first + lane; lane < lanes && g < last; g += lanes * LOADS) {
        Pack a[LOADS], b[LOADS];
        int skip[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const int at = g + i * lanes;
            a[i].whole = b[i].whole = make_uint4(0u, 0u, 0u, 0u);
            skip[i] = 0;
            if (at < last) {
                int start = PACK * u - turn[at - first];
                start += start < 0 ? chunks : 0;
                const int pack = start / PACK, after = pack + 1 < packs ? pack + 1 : 0;
                skip[i] = start % PACK;
                const uint4* group = gradient + (long long)at * packs;
                a[i].whole = __ldg(group + pack);
                if (skip[i]) b[i].whole = __ldg(group + after);
            }
        }
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const Pack x = window(a[i], b[i], skip[i]);
            const Winner place = PLACE_MASK - (Winner)(DTYPE == 2 ? g + i * lanes : g + i * lanes - first);
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                best[j] = max(best[j], ((Winner)(x.each[j] & MAGNITUDE) << PLACES) | (place & PLACE_MASK));
                if (energy) sum.add(number(x.each[j]));
            }
        }
    }
    if (lane < lanes)
#pragma unroll
        for (int j = 0; j < PACK; ++j) atomicMax(found + PACK * u + j, best[j]);
    __syncthreads();
    for (int q = threadIdx.x; q < chunks; q += THREADS) {
        const u64 magnitude = found[q] >> PLACES;
        const unsigned at = (unsigned)(PLACE_MASK - (found[q] & PLACE_MASK)) + (DTYPE == 2 ? 0 : first);
        candidates[((long long)blockIdx.z * chunks + q) * gridDim.x + blockIdx.x] =
            magnitude ? magnitude << 32 | (0xffffffffu - at) : 0ull;
    }
    if (energy) store_energy(sum, energy + (long long)blockIdx.z * gridDim.x + blockIdx.x);
}

// Chunks of consecutive entries; a block scans a share of one chunk. Grid: shares, chunks, gradients.
extern "C" __global__ void __launch_bounds__(THREADS)
top_consecutive(const u64* __restrict__ gradients, u64* candidates, double* energy,
                const long long numel, const long long chunks, const long long length,
                const long long share, const long long vector) {
    const long long start = (long long)blockIdx.y * length;
    const long long first = blockIdx.x * share;
    const long long last = min(min(length, first + share), numel - start);
    const raw* chunk = reinterpret_cast<const raw*>(gradients[blockIdx.z]) + start;
    Largest top;
    Energy sum;
    if (vector) {
        for (long long i = first + threadIdx.x * PACK; i < last; i += THREADS * PACK) {
            Pack x;
            x.whole = __ldcs(reinterpret_cast<const uint4*>(chunk + i));
#pragma unroll
            for (int j = 0; j < PACK; ++j)
                if (i + j < last) {
                    top.offer(x.each[j] & MAGNITUDE, (unsigned)(i + j));
                    if (energy) sum.add(number(x.each[j]));
                }
        }
    } else {
        for (long long i = first + threadIdx.x; i < last; i += THREADS) {
            top.offer(chunk[i] & MAGNITUDE, (unsigned)i);
            if (energy) sum.add(number(chunk[i]));
        }
    }
    // S times the largest head of all threads; whose it is moves on.
    __shared__ u64 heads[THREADS / 32];
    int next = 0;
    for (int round = 0; round < S; ++round) {
        u64 own = 0ull;
#pragma unroll
        for (int i = 0; i < S; ++i) own = i == next ? top.key(i) : own;
        u64 key = own;
#pragma unroll
        for (int offset = 16; offset; offset >>= 1) key = max(key, __shfl_xor_sync(0xffffffffu, key, offset));
        if (threadIdx.x % 32 == 0) heads[threadIdx.x / 32] = key;
        __syncthreads();
        key = heads[0];
        for (int w = 1; w < THREADS / 32; ++w) key = max(key, heads[w]);
        next += key && key == own;
        __syncthreads();
        if (threadIdx.x == 0)
            candidates[(((long long)blockIdx.z * chunks + blockIdx.y) * gridDim.x + blockIdx.x) * S + round] = key;
    }
    if (energy) store_energy(sum, energy + ((long long)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
}

// Keys of the chosen entries (n, c, s) to places and values. `dealt` says which of the two
// layouts it is.
extern "C" __global__ void __launch_bounds__(THREADS)
read_entries(const u64* __restrict__ gradients, const long long multiply, const long long add,
             const u64* __restrict__ keys, long long* index, float* values, const long long total,
             const long long chunks, const long long length, const long long s,
             const long long dealt) {
    const long long slot = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (slot >= total) return;
    const u64 key = keys[slot];
    const long long place = key ? (long long)(0xffffffffu - (unsigned)key) : 0;
    const long long q = slot / s % chunks, parameter = slot / s / chunks;
    long long at = q * length + place;
    if (dealt) {
        long long o = q - turn_of(place, multiply, add, chunks);
        at = place * chunks + o + (o < 0 ? chunks : 0);
    }
    index[slot] = place;
    values[slot] = key ? number(reinterpret_cast<const raw*>(gradients[parameter])[at]) : 0.0f;
}

// The s largest of each chunk for s up to the chunk: a block holds a whole chunk in registers, V keys
// a thread, and finds the s-th largest magnitude bit by bit. In order of place. Grid: chunks,
// gradients. The layout is as above.
#ifndef V
#define V 8
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
top_of_whole(const u64* __restrict__ gradients, const long long multiply, const long long add,
             long long* index, float* values, double* energy, const long long numel, const long long chunks,
             const long long length, const long long s_, const long long dealt) {
    __shared__ int counts[THREADS / 32];
    const int s = (int)s_, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long q = blockIdx.x;
    const raw* gradient = reinterpret_cast<const raw*>(gradients[blockIdx.y]);
    raw x[V];
    unsigned magnitude[V];
    Energy total;
    // Thread t holds the places V t to V t + V - 1, so that places run in the order of threads.
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const long long place = (long long)threadIdx.x * V + v;
        x[v] = 0;
        magnitude[v] = 0u;
        if (place < length) {
            long long at = q * length + place;
            if (dealt) {
                const long long o = q - turn_of(place, multiply, add, chunks);
                at = place * chunks + o + (o < 0 ? chunks : 0);
            }
            if (at < numel) x[v] = gradient[at];
            magnitude[v] = (x[v] & MAGNITUDE) + 1u;  // above what is beyond the chunk
            total.add(number(x[v]));
        }
    }
    auto count = [&](const unsigned least) {  // of the block, at least this large
        int mine = 0;
#pragma unroll
        for (int v = 0; v < V; ++v) mine += magnitude[v] >= least;
        mine = __reduce_add_sync(0xffffffffu, mine);
        __syncthreads();
        if (lane == 0) counts[warp] = mine;
        __syncthreads();
        int all = 0;
#pragma unroll
        for (int w = 0; w < THREADS / 32; ++w) all += counts[w];
        return all;
    };
    unsigned threshold = 0u;  // the largest value that s entries reach
#pragma unroll 1
    for (int bit = DTYPE == 2 ? 31 : 15; bit >= 0; --bit) {
        const unsigned higher = threshold | 1u << bit;
        if (count(higher) >= s) threshold = higher;
    }
    const int above = threshold == 0xffffffffu ? 0 : count(threshold + 1u);

    // Where each thread writes: entries above the threshold first, then the earliest that equal it.
    int larger = 0, equal = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        larger += magnitude[v] > threshold;
        equal += magnitude[v] == threshold;
    }
    __shared__ int offsets[2][THREADS / 32];
    int place_larger = larger, place_equal = equal;
#pragma unroll
    for (int offset = 1; offset < 32; offset <<= 1) {
        const int l = __shfl_up_sync(0xffffffffu, place_larger, offset);
        const int e = __shfl_up_sync(0xffffffffu, place_equal, offset);
        if (lane >= offset) { place_larger += l; place_equal += e; }
    }
    if (lane == 31) { offsets[0][warp] = place_larger; offsets[1][warp] = place_equal; }
    __syncthreads();
    place_larger -= larger;
    place_equal += above - equal;
    for (int w = 0; w < warp; ++w) { place_larger += offsets[0][w]; place_equal += offsets[1][w]; }
    const long long row = (blockIdx.y * chunks + q) * s;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        int slot = -1;
        if (magnitude[v] > threshold) slot = place_larger++;
        else if (magnitude[v] == threshold && place_equal < s) slot = place_equal++;
        if (slot >= 0) {
            index[row + slot] = (long long)threadIdx.x * V + v;
            values[row + slot] = number(x[v]);
        }
    }
    if (energy) store_energy(total, energy + blockIdx.y * chunks + q);
}

// From places in chunks to places in the parameter: support (n c, s), -1 is none and stays none;
// padding that was picked becomes none. Values of none are 0, the others are multiplied by alpha.
extern "C" __global__ void __launch_bounds__(THREADS)
to_parameter(const long long* __restrict__ support, const float* __restrict__ values,
             const long long multiply, const long long add, long long* index, float* scaled,
             const long long total, const long long numel, const long long chunks,
             const long long length, const long long s, const long long dealt, const float alpha) {
    const long long slot = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (slot >= total) return;
    const long long place = support[slot], q = slot / s % chunks;
    long long at = q * length + place;
    if (dealt && place >= 0) {
        const long long o = q - turn_of(place, multiply, add, chunks);
        at = place * chunks + o + (o < 0 ? chunks : 0);
    }
    const bool exists = place >= 0 && at < numel;
    index[slot] = exists ? at : -1;
    scaled[slot] = exists ? alpha * values[slot] : 0.0f;
}
