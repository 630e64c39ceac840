/* Kernels of the network plans, in what CUDA C++ and C have in common: NVRTC compiles them for a card, the C compiler for
 * the processor (see mod.rs).
 *
 * Values of n elements are [positions, n, channels], as in the plans. Every kernel computes `elements` results, each from
 * inputs that nobody writes meanwhile, so their order does not matter; where a kernel works in place, a result replaces
 * the one value that it is made of. "adds" says whether a result is added to what is there or takes its place.
 */

typedef unsigned int uint;

/* As `Launch` in mod.rs. */
typedef struct {
    unsigned long long values[6];
    unsigned long long sizes[8];
    float factors[2];
    unsigned long long elements;
} Launch;

#ifdef __CUDACC__
#define KERNEL(name) extern "C" __global__ void tenon_##name(const Launch l)
#define FUNCTION static __device__ inline
/* The host starts at most 2^31 elements, so that the last step does not wrap. */
#define EACH(i) for (uint i = blockIdx.x * blockDim.x + threadIdx.x; i < (uint)l.elements; i += gridDim.x * blockDim.x)
#else
#include <math.h>
#define KERNEL(name) void tenon_##name(const Launch l)
#define FUNCTION static inline
#define EACH(i) for (uint i = 0; i < (uint)l.elements; ++i)
#endif

#define VALUES(k) ((float *)l.values[k])
#define INDICES(k) ((const uint *)l.values[k])
#define SIZE(k) ((uint)l.sizes[k])

FUNCTION void put(float *to, float value, uint adds) { *to = adds ? *to + value : value; }

/* ---- element by element ---- */

/* values: out. factors: the value. */
KERNEL(fill) {
    float *out = VALUES(0);
    EACH(i) out[i] = l.factors[0];
}

/* out (+)= factor x + offset. values: out, x. sizes: adds. factors: factor, offset. */
KERNEL(scale_shift) {
    float *out = VALUES(0);
    const float *x = VALUES(1);
    EACH(i) put(out + i, l.factors[0] * x[i] + l.factors[1], SIZE(0));
}

/* out = x + y, y as often as it takes. values: out, x, y. sizes: values of y. */
KERNEL(add_repeated) {
    float *out = VALUES(0);
    const float *x = VALUES(1), *y = VALUES(2);
    EACH(i) out[i] = x[i] + y[i % SIZE(0)];
}

/* out += all of d, which repeats it. values: out, d. sizes: repetitions. */
KERNEL(sum_repeated) {
    float *out = VALUES(0);
    const float *d = VALUES(1);
    EACH(i) {
        float sum = 0;
        for (uint p = 0; p < SIZE(0); ++p) sum += d[p * (uint)l.elements + i];
        out[i] += sum;
    }
}

/* Every row the same. values: out, row. sizes: channels, adds. */
KERNEL(fill_rows) {
    float *out = VALUES(0);
    const float *row = VALUES(1);
    EACH(i) put(out + i, row[i % SIZE(0)], SIZE(1));
}

/* values: out, x, y. */
KERNEL(multiply) {
    float *out = VALUES(0);
    const float *x = VALUES(1), *y = VALUES(2);
    EACH(i) out[i] = x[i] * y[i];
}

/* values: out, x. factors: low, high. What is not a number stays that. */
KERNEL(clamp) {
    float *out = VALUES(0);
    const float *x = VALUES(1);
    EACH(i) out[i] = x[i] < l.factors[0] ? l.factors[0] : x[i] > l.factors[1] ? l.factors[1] : x[i];
}

/* values: dx, d, x. sizes: adds. factors: low, high. */
KERNEL(clamp_backward) {
    float *dx = VALUES(0);
    const float *d = VALUES(1), *x = VALUES(2);
    EACH(i) put(dx + i, x[i] < l.factors[0] || x[i] > l.factors[1] ? 0 : d[i], SIZE(0));
}

/* ---- activations ---- */

enum { MISH = 0, RELU = 1, TANH = 2, GELU = 3, ELU = 4 };

/* Value and derivative; ReLU leaves the derivative alone, `gate` tells it from the value. */
FUNCTION float activation(uint kind, float x, float *derivative) {
    if (kind == MISH) {
        /* x n/(n+2) with n = e(e+2), e = exp x; from 20 on the quotient is 1, and e squared stays finite. */
        const float e = expf(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f), inverse = 1.0f / (n + 2.0f), t = n * inverse;
        if (derivative) *derivative = 4.0f * x * (e * (e + 1.0f) * inverse * inverse) + t;
        return x * t;
    }
    if (kind == RELU) return x < 0.0f ? 0.0f : x;
    if (kind == TANH) {
        const float t = tanhf(x);
        if (derivative) *derivative = 1.0f - t * t;
        return t;
    }
    if (kind == GELU) {
        const float cdf = 0.5f * (1.0f + erff(x * 0.70710678f)), density = expf(-0.5f * x * x) * 0.39894228f;
        if (derivative) *derivative = cdf + x * density;
        return x * cdf;
    }
    if (derivative) *derivative = x > 0.0f ? 1.0f : expf(x);
    return x > 0.0f ? x : expm1f(x);
}

/* out = f(x + bias). values: out, x, bias or none, derivative or none. sizes: channels, kind. */
KERNEL(activate) {
    float *out = VALUES(0), *derivative = VALUES(3);
    const float *x = VALUES(1), *bias = VALUES(2);
    EACH(i) {
        const float h = bias ? x[i] + bias[i % SIZE(0)] : x[i];
        out[i] = activation(SIZE(1), h, derivative ? derivative + i : 0);
    }
}

/* d becomes the gradient before an activation. values: d, value, derivative. sizes: kind. */
KERNEL(gate) {
    float *d = VALUES(0);
    const float *value = VALUES(1), *derivative = VALUES(2);
    EACH(i) d[i] = SIZE(0) == RELU ? (value[i] > 0.0f ? d[i] : 0.0f) : d[i] * derivative[i];
}

/* ---- moving values ---- */

enum { LOOKUP_ONE = 0, LOOKUP_SAME = 1, LOOKUP_LIST = 2 };

/* out[p][r] (+)= source[p][index(r)]; a source with one position stands on every position.
 * values: out, source, list or none. sizes: n, channels, source's positions, source's elements, lookup, adds. */
KERNEL(gather) {
    float *out = VALUES(0);
    const float *source = VALUES(1);
    const uint *list = INDICES(2);
    EACH(i) {
        const uint c = i % SIZE(1), row = i / SIZE(1), r = row % SIZE(0), p = row / SIZE(0);
        const uint e = SIZE(4) == LOOKUP_LIST ? list[r] : SIZE(4) == LOOKUP_SAME ? r : 0;
        const uint q = SIZE(2) == 1 ? 0 : p;
        put(out + i, source[(q * SIZE(3) + e) * SIZE(1) + c], SIZE(5));
    }
}

/* The reverse for states, whose rows are neighbours: sums[p][e] += d[p][r] of all r from first[e] to first[e + 1].
 * values: sums, d, first. sizes: n, channels, elements of sums, positions, positions of sums. */
KERNEL(scatter_states) {
    float *sums = VALUES(0);
    const float *d = VALUES(1);
    const uint *first = INDICES(2);
    EACH(i) {
        const uint c = i % SIZE(1), place = i / SIZE(1), e = place % SIZE(2), q = place / SIZE(2);
        const uint begin = SIZE(4) == 1 ? 0 : q, end = SIZE(4) == 1 ? SIZE(3) : q + 1;
        float sum = 0;
        for (uint p = begin; p < end; ++p)
            for (uint r = first[e]; r < first[e + 1]; ++r) sum += d[(p * SIZE(0) + r) * SIZE(1) + c];
        sums[i] += sum;
    }
}

/* 1 where the row's index is the column. values: out [rows, columns], list. sizes: columns. */
KERNEL(one_hot) {
    float *out = VALUES(0);
    const uint *list = INDICES(1);
    EACH(i) out[i] = list[i / SIZE(0)] == i % SIZE(0) ? 1.0f : 0.0f;
}

/* Some channels of every row. values: to, from. sizes: channels and first one of `to`, the same of `from`, width, adds. */
KERNEL(copy_channels) {
    float *to = VALUES(0);
    const float *from = VALUES(1);
    EACH(i) {
        const uint c = i % SIZE(4), row = i / SIZE(4);
        put(to + row * SIZE(0) + SIZE(1) + c, from[row * SIZE(2) + SIZE(3) + c], SIZE(5));
    }
}

/* [positions, channels] of each element to [channels, positions]. values: to, from. sizes: positions, channels, n, adds. */
KERNEL(transpose) {
    float *to = VALUES(0);
    const float *from = VALUES(1);
    EACH(i) {
        const uint c = i % SIZE(1), row = i / SIZE(1), r = row % SIZE(2), p = row / SIZE(2);
        put(to + (c * SIZE(2) + r) * SIZE(0) + p, from[i], SIZE(3));
    }
}

/* The row-major values of each element in another shape. values: to, from. sizes: channels of `to`, of `from`, n, adds. */
KERNEL(reshape) {
    float *to = VALUES(0);
    const float *from = VALUES(1);
    EACH(i) {
        const uint row = i / SIZE(1), r = row % SIZE(2), flat = row / SIZE(2) * SIZE(1) + i % SIZE(1);
        put(to + (flat / SIZE(0) * SIZE(2) + r) * SIZE(0) + flat % SIZE(0), from[i], SIZE(3));
    }
}

/* ---- norms ---- */

/* A row each. values: out, x, weight, bias, normalised, inverse deviation. sizes: channels. factors: epsilon. */
KERNEL(layer_norm) {
    float *out = VALUES(0), *normalised = VALUES(4), *inverse = VALUES(5);
    const float *x = VALUES(1), *weight = VALUES(2), *bias = VALUES(3);
    const uint channels = SIZE(0);
    EACH(row) {
        const float *from = x + row * channels;
        float mean = 0, variance = 0;
        for (uint c = 0; c < channels; ++c) mean += from[c];
        mean /= (float)channels;
        for (uint c = 0; c < channels; ++c) variance += (from[c] - mean) * (from[c] - mean);
        inverse[row] = 1.0f / sqrtf(variance / (float)channels + l.factors[0]);
        for (uint c = 0; c < channels; ++c) {
            const float z = (from[c] - mean) * inverse[row];
            normalised[row * channels + c] = z;
            out[row * channels + c] = z * weight[c] + bias[c];
        }
    }
}

/* A row each. values: dx, d, weight, normalised, inverse deviation. sizes: channels, adds. */
KERNEL(layer_norm_backward) {
    float *dx = VALUES(0);
    const float *weight = VALUES(2), *inverse = VALUES(4);
    const uint channels = SIZE(0);
    EACH(row) {
        const float *d = VALUES(1) + row * channels, *z = VALUES(3) + row * channels;
        float mean = 0, along = 0;
        for (uint c = 0; c < channels; ++c) {
            mean += d[c] * weight[c];
            along += d[c] * weight[c] * z[c];
        }
        mean /= (float)channels;
        along /= (float)channels;
        for (uint c = 0; c < channels; ++c)
            put(dx + row * channels + c, (d[c] * weight[c] - mean - z[c] * along) * inverse[row], SIZE(1));
    }
}

/* A group of an element each. values: out, x, weight, bias, normalised, inverse deviation [n, groups].
 * sizes: n, channels, groups, positions. factors: epsilon. */
KERNEL(group_norm) {
    float *out = VALUES(0), *normalised = VALUES(4), *inverse = VALUES(5);
    const float *x = VALUES(1), *weight = VALUES(2), *bias = VALUES(3);
    const uint n = SIZE(0), channels = SIZE(1), width = channels / SIZE(2), positions = SIZE(3);
    EACH(i) {
        const uint r = i / SIZE(2), start = i % SIZE(2) * width;
        const float count = (float)(positions * width);
        float mean = 0, variance = 0;
        for (uint p = 0; p < positions; ++p)
            for (uint c = start; c < start + width; ++c) mean += x[(p * n + r) * channels + c];
        mean /= count;
        for (uint p = 0; p < positions; ++p)
            for (uint c = start; c < start + width; ++c) {
                const float z = x[(p * n + r) * channels + c] - mean;
                variance += z * z;
            }
        inverse[i] = 1.0f / sqrtf(variance / count + l.factors[0]);
        for (uint p = 0; p < positions; ++p)
            for (uint c = start; c < start + width; ++c) {
                const uint at = (p * n + r) * channels + c;
                normalised[at] = (x[at] - mean) * inverse[i];
                out[at] = normalised[at] * weight[c] + bias[c];
            }
    }
}

/* A group of an element each. values: dx, d, weight, normalised, inverse deviation. sizes: as above, adds. */
KERNEL(group_norm_backward) {
    float *dx = VALUES(0);
    const float *d = VALUES(1), *weight = VALUES(2), *z = VALUES(3), *inverse = VALUES(4);
    const uint n = SIZE(0), channels = SIZE(1), width = channels / SIZE(2), positions = SIZE(3);
    EACH(i) {
        const uint r = i / SIZE(2), start = i % SIZE(2) * width;
        const float count = (float)(positions * width);
        float mean = 0, along = 0;
        for (uint p = 0; p < positions; ++p)
            for (uint c = start; c < start + width; ++c) {
                const uint at = (p * n + r) * channels + c;
                mean += d[at] * weight[c];
                along += d[at] * weight[c] * z[at];
            }
        mean /= count;
        along /= count;
        for (uint p = 0; p < positions; ++p)
            for (uint c = start; c < start + width; ++c) {
                const uint at = (p * n + r) * channels + c;
                put(dx + at, (d[at] * weight[c] - mean - z[at] * along) * inverse[i], SIZE(4));
            }
    }
}

/* ---- modulation: x scale + shift with film [n, 2 channels], scales first ---- */

/* values: out, x, film. sizes: n, channels. */
KERNEL(modulate) {
    float *out = VALUES(0);
    const float *x = VALUES(1), *film = VALUES(2);
    EACH(i) {
        const uint c = i % SIZE(1), at = i / SIZE(1) % SIZE(0) * 2 * SIZE(1) + c;
        out[i] = x[i] * film[at] + film[at + SIZE(1)];
    }
}

/* A channel of an element each, both of its gradients. values: gradient of film, d, x. sizes: n, channels, positions, adds. */
KERNEL(modulate_film) {
    float *film = VALUES(0);
    const float *d = VALUES(1), *x = VALUES(2);
    EACH(i) {
        const uint c = i % SIZE(1), r = i / SIZE(1), at = r * 2 * SIZE(1) + c;
        float scale = 0, shift = 0;
        for (uint p = 0; p < SIZE(2); ++p) {
            const uint from = (p * SIZE(0) + r) * SIZE(1) + c;
            scale += d[from] * x[from];
            shift += d[from];
        }
        put(film + at, scale, SIZE(3));
        put(film + at + SIZE(1), shift, SIZE(3));
    }
}

/* values: dx, d, film. sizes: n, channels, adds. */
KERNEL(modulate_input) {
    float *dx = VALUES(0);
    const float *d = VALUES(1), *film = VALUES(2);
    EACH(i) put(dx + i, d[i] * film[i / SIZE(1) % SIZE(0) * 2 * SIZE(1) + i % SIZE(1)], SIZE(2));
}

/* ---- pictures: patches [places * n, kernel * kernel * inputs] of a picture [pixels, n, inputs] ---- */

/* values: patches, x. sizes: n, inputs, places in a row, pixels in a row, kernel, stride. */
KERNEL(patches) {
    float *out = VALUES(0);
    const float *x = VALUES(1);
    const uint n = SIZE(0), inputs = SIZE(1), kernel = SIZE(4), patch = kernel * kernel * inputs;
    EACH(i) {
        const uint column = i % patch, c = column % inputs, k = column / inputs;
        const uint row = i / patch, r = row % n, place = row / n;
        const uint y = place / SIZE(2) * SIZE(5) + k / kernel, at = place % SIZE(2) * SIZE(5) + k % kernel;
        out[i] = x[((y * SIZE(3) + at) * n + r) * inputs + c];
    }
}

/* A value of the picture each. values: dx, patches' gradient. sizes: as above, places in a column, adds. */
KERNEL(patches_backward) {
    float *dx = VALUES(0);
    const float *d = VALUES(1);
    const uint n = SIZE(0), inputs = SIZE(1), across = SIZE(2), kernel = SIZE(4), stride = SIZE(5), down = SIZE(6);
    EACH(i) {
        const uint c = i % inputs, r = i / inputs % n, pixel = i / inputs / n, y = pixel / SIZE(3), x = pixel % SIZE(3);
        float sum = 0;
        for (uint ky = 0; ky < kernel && ky <= y; ++ky)
            for (uint kx = 0; kx < kernel && kx <= x; ++kx) {
                const uint from_y = (y - ky) / stride, from_x = (x - kx) / stride;
                if ((y - ky) % stride || (x - kx) % stride || from_y >= down || from_x >= across) continue;
                const uint row = (from_y * across + from_x) * n + r;
                sum += d[row * kernel * kernel * inputs + (ky * kernel + kx) * inputs + c];
            }
        put(dx + i, sum, SIZE(7));
    }
}

/* ---- attention: queries [positions, n, channels], keys [memory, n, channels], weights [n, heads, positions, memory] ---- */

/* out = factor times the products of rows of a and b. values: out, a, b. sizes: n, positions, memory, channels, heads. */
KERNEL(attention_scores) {
    float *out = VALUES(0);
    const float *a = VALUES(1), *b = VALUES(2);
    const uint n = SIZE(0), positions = SIZE(1), memory = SIZE(2), channels = SIZE(3), width = channels / SIZE(4);
    EACH(i) {
        const uint m = i % memory, p = i / memory % positions, head = i / memory / positions;
        const uint r = head / SIZE(4), start = head % SIZE(4) * width;
        const float *left = a + (p * n + r) * channels + start, *right = b + (m * n + r) * channels + start;
        float sum = 0;
        for (uint c = 0; c < width; ++c) sum += left[c] * right[c];
        out[i] = l.factors[0] * sum;
    }
}

/* A row each, in place. values: rows. sizes: width. */
KERNEL(softmax) {
    EACH(row) {
        float *x = VALUES(0) + row * SIZE(0);
        float highest = x[0], sum = 0;
        for (uint m = 1; m < SIZE(0); ++m) highest = x[m] > highest ? x[m] : highest;
        for (uint m = 0; m < SIZE(0); ++m) {
            x[m] = expf(x[m] - highest);
            sum += x[m];
        }
        for (uint m = 0; m < SIZE(0); ++m) x[m] /= sum;
    }
}

/* A row each, in place. values: gradient of the weights, weights. sizes: width. */
KERNEL(softmax_backward) {
    EACH(row) {
        float *d = VALUES(0) + row * SIZE(0), along = 0;
        const float *w = VALUES(1) + row * SIZE(0);
        for (uint m = 0; m < SIZE(0); ++m) along += d[m] * w[m];
        for (uint m = 0; m < SIZE(0); ++m) d[m] = w[m] * (d[m] - along);
    }
}

/* out[p] (+)= factor times the sum of weights[p][m] x[m] over m.
 * values: out, weights, x. sizes: n, positions, memory, channels, heads, adds. */
KERNEL(attention_mix) {
    float *out = VALUES(0);
    const float *weights = VALUES(1), *x = VALUES(2);
    const uint n = SIZE(0), positions = SIZE(1), memory = SIZE(2), channels = SIZE(3), heads = SIZE(4);
    EACH(i) {
        const uint c = i % channels, r = i / channels % n, p = i / channels / n, head = c / (channels / heads);
        const float *w = weights + ((r * heads + head) * positions + p) * memory;
        float sum = 0;
        for (uint m = 0; m < memory; ++m) sum += w[m] * x[(m * n + r) * channels + c];
        put(out + i, l.factors[0] * sum, SIZE(5));
    }
}

/* out[m] (+)= factor times the sum of weights[p][m] x[p] over p. The same values and sizes. */
KERNEL(attention_mix_back) {
    float *out = VALUES(0);
    const float *weights = VALUES(1), *x = VALUES(2);
    const uint n = SIZE(0), positions = SIZE(1), memory = SIZE(2), channels = SIZE(3), heads = SIZE(4);
    EACH(i) {
        const uint c = i % channels, r = i / channels % n, m = i / channels / n, head = c / (channels / heads);
        const float *w = weights + (r * heads + head) * positions * memory + m;
        float sum = 0;
        for (uint p = 0; p < positions; ++p) sum += w[p * memory] * x[(p * n + r) * channels + c];
        put(out + i, l.factors[0] * sum, SIZE(5));
    }
}

/* ---- sum over positions with weights [positions, channels] ---- */

/* values: out [n, channels], x, weights. sizes: positions, channels. */
KERNEL(weighted_sum) {
    float *out = VALUES(0);
    const float *x = VALUES(1), *weights = VALUES(2);
    EACH(i) {
        float sum = 0;
        for (uint p = 0; p < SIZE(0); ++p) sum += x[p * (uint)l.elements + i] * weights[p * SIZE(1) + i % SIZE(1)];
        out[i] = sum;
    }
}

/* A weight each. values: gradient of the weights (added to), x, d. sizes: n, channels. */
KERNEL(weighted_sum_weight) {
    float *out = VALUES(0);
    const float *x = VALUES(1), *d = VALUES(2);
    EACH(i) {
        const uint c = i % SIZE(1), p = i / SIZE(1);
        float sum = 0;
        for (uint r = 0; r < SIZE(0); ++r) sum += x[(p * SIZE(0) + r) * SIZE(1) + c] * d[r * SIZE(1) + c];
        out[i] += sum;
    }
}

/* values: dx, d, weights. sizes: n, channels, adds. */
KERNEL(weighted_sum_input) {
    float *dx = VALUES(0);
    const float *d = VALUES(1), *weights = VALUES(2);
    EACH(i) {
        const uint c = i % SIZE(1), row = i / SIZE(1), r = row % SIZE(0), p = row / SIZE(0);
        put(dx + i, d[r * SIZE(1) + c] * weights[p * SIZE(1) + c], SIZE(2));
    }
}
