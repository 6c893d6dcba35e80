#include "attention.h"

constexpr int64_t kQueries = 32;  // queries that PyTorch computes together in documents of up to 191 positions

template <int R, int J>
static void tile(Left a, const float* b, int64_t b_row, int64_t terms, bool accumulate, float* c, int64_t c_row) {
    Vec sums[R][J];
    for (auto& row : sums)
        for (Vec& sum : row) sum = Vec(0.0f);
    for (int64_t k = 0; k < terms; ++k)
        for (int r = 0; r < R; ++r) {
            const Vec x(a.data[r * a.row + k * a.column]);
            for (int j = 0; j < J; ++j) sums[r][j] = vec::fmadd(x, Vec::loadu(b + k * b_row + j * kVec), sums[r][j]);
        }
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < J; ++j) {
            float* at = c + r * c_row + j * kVec;
            (accumulate ? Vec::loadu(at) + sums[r][j] : sums[r][j]).store(at);
        }
}

template <int R>
static void tiles(Left a, const float* b, int64_t b_row, int64_t columns, int64_t terms, bool accumulate, float* c,
                  int64_t c_row) {
    int64_t j = 0;
    for (; j + 2 * kVec <= columns; j += 2 * kVec) tile<R, 2>(a, b + j, b_row, terms, accumulate, c + j, c_row);
    for (; j < columns; j += kVec) tile<R, 1>(a, b + j, b_row, terms, accumulate, c + j, c_row);
}

void small_product(Left a, const float* b, int64_t b_row, int64_t rows, int64_t columns, int64_t terms, bool accumulate,
                   float* c, int64_t c_row) {
    constexpr int kRows = Vec::size() == 16 ? 8 : 4;  // as many sums as there are registers for
    int64_t i = 0;
    const auto from = [&](int64_t row) { return Left{a.data + row * a.row, a.row, a.column}; };
    for (; i + kRows <= rows; i += kRows) tiles<kRows>(from(i), b, b_row, columns, terms, accumulate, c + i * c_row, c_row);
    for (; i < rows; ++i) tiles<1>(from(i), b, b_row, columns, terms, accumulate, c + i * c_row, c_row);
}

static int64_t up(int64_t size) { return (size + kVec - 1) / kVec * kVec; }

static float scale_of(const Head& h) { return 1.0 / std::sqrt(double(h.head_width)); }

int64_t attention_space(int64_t length, int64_t head_width) {
    return 4 * head_width * up(length) + 2 * kQueries * up(length);
}

// y [columns, up(rows)] = factor * the transposed x [rows, columns], padded with zeros.
static void transpose(const Head& h, const float* x, float factor, float* y) {
    const int64_t padded = up(h.length);
    for (int64_t j = 0; j < h.head_width; ++j) {
        for (int64_t i = 0; i < h.length; ++i) y[j * padded + i] = factor * x[i * h.row + j];
        std::fill(y + j * padded + h.length, y + (j + 1) * padded, 0.0f);
    }
}

// y [rows, columns] = factor * x.
static void scaled(const Head& h, const float* x, float factor, float* y) {
    for (int64_t i = 0; i < h.length; ++i)
        for (int64_t j = 0; j < h.head_width; ++j) y[i * h.head_width + j] = factor * x[i * h.row + j];
}

// Turn ``count`` scores of one query into exponentials; return one over their sum. PyTorch computes whole vectors of
// the document with its fast exponential, and the remaining positions with that of the C library.
static float exponentials(float* scores, int64_t count, const Head& h, float& normaliser) {
    const int64_t whole = std::min(up(count), h.length / kVec * kVec);
    const Vec factor(scale_of(h));
    Vec largest(-INFINITY), sum(0.0f);
    for (int64_t j = 0; j < up(count); j += kVec) {
        const Vec v = Vec::loadu(scores + j) * factor;
        v.store(scores + j);
        largest = vec::maximum(largest, v);
    }
    const float max = vec::vec_reduce_all<float>([](Vec a, Vec b) { return vec::maximum(a, b); }, largest);
    for (int64_t j = 0; j < whole; j += kVec) {
        const Vec v = (Vec::loadu(scores + j) - Vec(max)).exp_u20();
        sum = sum + v;
        v.store(scores + j);
    }
    float total = vec::vec_reduce_all<float>([](Vec a, Vec b) { return a + b; }, sum);
    for (int64_t j = whole; j < count; ++j) total += scores[j] = std::exp(scores[j] - max);
    normaliser = max + std::log(total);
    return 1 / total;
}

void attend(const Head& h, float* space, float* y, float* normalisers) {
    const int64_t padded = up(h.length);
    float *keys = space, *scores = keys + h.head_width * padded;
    transpose(h, h.k, 1.0f, keys);
    for (int64_t first = 0; first < h.length; first += kQueries) {
        const int64_t queries = std::min(kQueries, h.length - first), last = first + queries, columns = up(last);
        small_product({h.q + first * h.row, h.row, 1}, keys, padded, queries, columns, h.head_width, false, scores, padded);
        float factors[kQueries];
        for (int64_t i = 0; i < queries; ++i) {
            float* row = scores + i * padded;
            const int64_t count = first + i + 1;
            std::fill(row + count, row + columns, -INFINITY);
            factors[i] = exponentials(row, count, h, normalisers[first + i]);
            std::fill(row + count, row + columns, 0.0f);
        }
        float* out = y + first * h.width;
        small_product({scores, padded, 1}, h.v, h.row, queries, h.head_width, last, false, out, h.width);
        for (int64_t i = 0; i < queries; ++i)
            vec::map<float>([&](Vec v) { return v * Vec(factors[i]); }, out + i * h.width, out + i * h.width, h.head_width);
    }
}

void attend_backward(const Head& h, const float* grad, const float* y, const float* normalisers, float* space,
                     float* grad_q, float* grad_k, float* grad_v) {
    const int64_t padded = up(h.length), size = h.head_width * padded;
    float *keys = space, *values = keys + size, *q = values + size, *k = q + size;
    float *attention = k + size, *scores = attention + kQueries * padded;
    transpose(h, h.k, scale_of(h), keys);
    transpose(h, h.v, 1.0f, values);
    scaled(h, h.q, scale_of(h), q);  // the BLAS scales the factor that it packs
    scaled(h, h.k, scale_of(h), k);
    for (int64_t i = 0; i < h.length; ++i)
        for (float* g : {grad_q, grad_k, grad_v}) std::fill_n(g + i * h.row, h.head_width, 0.0f);
    for (int64_t first = 0; first < h.length; first += kQueries) {
        const int64_t queries = std::min(kQueries, h.length - first), last = first + queries, columns = up(last);
        const float* g = grad + first * h.width;
        small_product({h.q + first * h.row, h.row, 1}, keys, padded, queries, columns, h.head_width, false, attention, padded);
        small_product({g, h.width, 1}, values, padded, queries, columns, h.head_width, false, scores, padded);
        for (int64_t i = 0; i < queries; ++i) {
            float *p = attention + i * padded, *s = scores + i * padded;
            const Vec shift(normalisers[first + i]);
            const Vec mean(vec::map2_reduce_all<float>([](Vec a, Vec b) { return a * b; },
                                                       [](Vec a, Vec b) { return a + b; }, g + i * h.width,
                                                       y + (first + i) * h.width, h.head_width));
            vec::map<float>([&](Vec v) { return (v - shift).exp(); }, p, p, up(first + i + 1));
            std::fill(p + first + i + 1, p + columns, 0.0f);
            vec::map2<float>([&](Vec a, Vec b) { return a * (b - mean); }, s, p, s, columns);
        }
        small_product({attention, 1, padded}, g, h.width, last, h.head_width, queries, true, grad_v, h.row);
        small_product({scores, padded, 1}, k, h.head_width, queries, h.head_width, last, true, grad_q + first * h.row, h.row);
        small_product({scores, 1, padded}, q + first * h.head_width, h.head_width, last, h.head_width, queries, true, grad_k,
                      h.row);
    }
}
