// Row-wise arg-max of |score|, leaving out the columns that are taken: one block a row.
extern "C" __global__ void argmax_excluding(float* score, const long long* taken, long long* best,
                                            const int d, const int n_taken, const int taken_stride) {
    const long long row = blockIdx.x;
    float* line = score + row * d;
    const long long* mine = taken + row * taken_stride;
    // A comparison with NaN is false, so a taken column can never win.
    for (int i = threadIdx.x; i < n_taken; i += blockDim.x) line[mine[i]] = __int_as_float(0x7fffffff);
    __syncthreads();

    float top = -1.0f;
    int place = 0;
    for (int j = threadIdx.x; j < d; j += blockDim.x) {
        const float magnitude = fabsf(line[j]);
        if (magnitude > top) { top = magnitude; place = j; }
    }
    for (int offset = 16; offset; offset >>= 1) {
        const float other = __shfl_down_sync(0xffffffffu, top, offset);
        const int there = __shfl_down_sync(0xffffffffu, place, offset);
        if (other > top || (other == top && there < place)) { top = other; place = there; }
    }
    __shared__ float tops[32];
    __shared__ int places[32];
    if (threadIdx.x % 32 == 0) { tops[threadIdx.x / 32] = top; places[threadIdx.x / 32] = place; }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < blockDim.x / 32; ++w)
            if (tops[w] > top || (tops[w] == top && places[w] < place)) { top = tops[w]; place = places[w]; }
        best[row] = place;
    }
}
