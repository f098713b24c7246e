// The two largest |correlations| of each signal in every 32 atoms, atoms that are taken left out, for
// k > 16. The update (pursue.cu) finds the largest of all from them.
//
// A tiled fp16 tensor-core product whose epilogue keeps 8 bytes of 32 numbers: no batch x d output.
// Operands are rows of `width` fp16 numbers, zeros after the k-th, so the product is an 11-bit one. A
// block makes 128 signals x 128 atoms; operands arrive through four stages of shared memory.
constexpr int TILE = 128;    // signals, and atoms, of a block
constexpr int DEPTH = 32;    // parts a stage
constexpr int STAGES = 4;
constexpr int THREADS = 128; // 2 x 2 warps of 64 x 64
constexpr int PANEL = TILE * DEPTH * 2;  // bytes of one operand in one stage

// 16-byte pieces are permuted within four rows so that ldmatrix meets no bank twice.
__device__ __forceinline__ int place(const int row, const int piece) {
    return row * (DEPTH * 2) + ((piece ^ ((row >> 1) & 3)) << 4);
}

__device__ __forceinline__ void fetch(const unsigned to, const char* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
}

__device__ __forceinline__ void read_fragment(unsigned (&f)[4], const unsigned from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3]) : "r"(from));
}

__device__ __forceinline__ void mma16(float (&c)[4], const unsigned (&a)[4], const unsigned b0,
                                      const unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// signals: rows up to a multiple of 128 must exist (their content does not matter); atoms: zero rows
// up to a multiple of 128; width: a multiple of DEPTH; taken: one bit an atom, `words` words a row.
// keys: (batch, atoms / 32), the largest |correlation| of 32 atoms with its last five bits replaced by
// 31 - atom, the first on ties. seconds: the same of the second largest.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
correlate_many(const char* __restrict__ atoms, const char* __restrict__ signals,
               const unsigned* __restrict__ taken, unsigned* keys, unsigned* seconds, const long long batch,
               const long long width, const long long words) {
    extern __shared__ __align__(128) char stage_memory[];
    const unsigned memory = (unsigned)__cvta_generic_to_shared(stage_memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wr = (warp & 1) * 64, wc = (warp >> 1) * 64;
    const long long row0 = (long long)blockIdx.x * TILE, col0 = (long long)blockIdx.y * TILE;
    const long long pitch = width * 2;

    // Each thread copies four pieces of either operand a stage: rows tid/4 + 32 i, piece tid % 4.
    const int copy_row = threadIdx.x / 4, copy_piece = threadIdx.x % 4;
    const char* from_signals = signals + (row0 + copy_row) * pitch + copy_piece * 16;
    const char* from_atoms = atoms + (col0 + copy_row) * pitch + copy_piece * 16;
    const int steps = (int)(width / DEPTH);
    auto load = [&](const int step) {
        const unsigned to = memory + (step % STAGES) * 2 * PANEL;
#pragma unroll
        for (int i = 0; i < TILE; i += 32) {
            const long long offset = i * pitch + (long long)step * DEPTH * 2;
            fetch(to + place(copy_row + i, copy_piece), from_signals + offset);
            fetch(to + PANEL + place(copy_row + i, copy_piece), from_atoms + offset);
        }
    };

    float c[4][8][4] = {};
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
        const unsigned here = memory + (step % STAGES) * 2 * PANEL;
#pragma unroll
        for (int half = 0; half < DEPTH / 16; ++half) {
            unsigned a[4][4], b[4][4];
#pragma unroll
            for (int m = 0; m < 4; ++m)
                read_fragment(a[m], here + place(wr + 16 * m + lane % 16, 2 * half + lane / 16));
#pragma unroll
            for (int n = 0; n < 4; ++n)
                read_fragment(b[n], here + PANEL + place(wc + 16 * n + lane % 8 + (lane / 16) * 8,
                                                         2 * half + (lane / 8) % 2));
#pragma unroll
            for (int m = 0; m < 4; ++m)
#pragma unroll
                for (int n = 0; n < 8; ++n)
                    mma16(c[m][n], a[m], b[n / 2][2 * (n % 2)], b[n / 2][2 * (n % 2) + 1]);
        }
    }
    asm volatile("cp.async.wait_all;");

    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < 8; ++r) {
        const long long row = row0 + wr + 16 * (r / 2) + 8 * (r % 2) + g;
        const bool exists = row < batch;
        unsigned bits[2] = {0u, 0u};
        if (exists) {
            const unsigned* mine = taken + row * words + (col0 + wc) / 32;
            bits[0] = mine[0];
            bits[1] = mine[1];
        }
        unsigned top[2] = {0u, 0u}, second[2] = {0u, 0u};
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int column = 8 * (n % 4) + 2 * t + e;
                const unsigned magnitude = __float_as_uint(c[r / 2][n][2 * (r % 2) + e]) & 0x7fffffe0u;
                const unsigned key = (bits[n / 4] >> column) & 1u ? 0u : magnitude | (31u - column);
                second[n / 4] = max(second[n / 4], min(top[n / 4], key));
                top[n / 4] = max(top[n / 4], key);
            }
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int offset = 1; offset < 4; offset <<= 1) {  // the four lanes of a row
                const unsigned other = __shfl_xor_sync(0xffffffffu, top[h], offset);
                const unsigned rival = __shfl_xor_sync(0xffffffffu, second[h], offset);
                second[h] = max(max(second[h], rival), min(top[h], other));
                top[h] = max(top[h], other);
            }
        if (t < 2 && exists) {
            const long long slot = row * words + (col0 + wc) / 32 + t;
            keys[slot] = t ? top[1] : top[0];
            seconds[slot] = t ? second[1] : second[0];
        }
    }
}
