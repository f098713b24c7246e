// p = A x and q = A x² of sparse x, one warp a vector. REGS: 32 REGS >= k.
#ifndef REGS
#define REGS 8
#endif

extern "C" __global__ void __launch_bounds__(128)
sketch(const float* __restrict__ atoms, const long long* __restrict__ index,
       const float* __restrict__ values, float* p, float* q, const long long rows,
       const long long k_, const long long s) {
    const long long row = (long long)blockIdx.x * 4 + threadIdx.x / 32;
    if (row >= rows) return;
    const int lane = threadIdx.x % 32, k = (int)k_;
    float first[REGS] = {}, second[REGS] = {};
    for (long long i = 0; i < s; ++i) {
        const float x = values[row * s + i];
        const float* atom = atoms + index[row * s + i] * k;
#pragma unroll
        for (int u = 0; u < REGS; ++u)
            if (32 * u + lane < k) {
                const float a = __ldg(atom + 32 * u + lane);
                first[u] += a * x;
                second[u] += a * (x * x);
            }
    }
#pragma unroll
    for (int u = 0; u < REGS; ++u)
        if (32 * u + lane < k) {
            p[row * k + 32 * u + lane] = first[u];
            q[row * k + 32 * u + lane] = second[u];
        }
}
