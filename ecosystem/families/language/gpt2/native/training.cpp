// Gradients of small GPT-2s on a CPU, with the bits of the operations in transformer.py and loss.py.
//
// Matrix products are those of the BLAS in PyTorch, called with the same sizes; other sums are in the order of the
// PyTorch operation that they replace. Compiled without contraction: multiply-adds are written out where PyTorch has
// them. What is gained: no pass over memory between operations that need none, hyperbolic tangents computed once, and
// attention that leaves out what the causal mask hides.

#include "attention.h"

struct LayerTensors {  // in the order of transformer.Block
    float *ln_1_weight, *ln_1_bias, *c_attn_weight, *c_attn_bias, *attn_proj_weight, *attn_proj_bias;
    float *ln_2_weight, *ln_2_bias, *c_fc_weight, *c_fc_bias, *mlp_proj_weight, *mlp_proj_bias;
};

struct Tensors {  // weights, or their gradients
    const LayerTensors* layer;
    float *wte, *wpe, *ln_weight, *ln_bias;
};

struct Sizes {
    int64_t layers, width, heads, inner, vocabulary, context, chunk;  // chunk: rows of logits in memory at once
    float eps;
};

struct Part {  // some rows of a batch: [rows, length] each
    const int64_t *ids, *targets;
    const float* scale;
    float* probabilities;  // of the targets
    int64_t rows, length;
};

struct Activations {  // of one layer, for N positions
    float *x, *a, *qkv, *attended, *normalisers, *middle, *b, *wide, *tangents, *activated;
    Moments *first, *second;
};

// Sum over rows of x [rows, width] in the cascades of torch.sum.
static void sum_rows(const float* x, int64_t rows, int64_t width, float* y) {
    constexpr int kLevels = 4, kColumns = 4;
    int64_t power = 0;
    while ((int64_t(1) << power) < rows) ++power;
    power = std::max<int64_t>(4, power / kLevels);
    const int64_t step = int64_t(1) << power, mask = step - 1;
    for (int64_t first = 0; first < width; first += kColumns * kVec) {
        const int64_t columns = std::min<int64_t>(kColumns, (width - first) / kVec);
        Vec sums[kLevels][kColumns];
        for (auto& level : sums) std::fill(level, level + kColumns, Vec(0.0f));
        for (int64_t row = 0; row < rows;) {
            const int64_t last = std::min(row + step, rows);
            const bool whole = last == row + step;
            for (; row < last; ++row)
                for (int64_t j = 0; j < columns; ++j)
                    sums[0][j] = sums[0][j] + Vec::loadu(x + row * width + first + j * kVec);
            for (int level = 1; whole && level < kLevels; ++level) {
                for (int64_t j = 0; j < columns; ++j) {
                    sums[level][j] = sums[level][j] + sums[level - 1][j];
                    sums[level - 1][j] = Vec(0.0f);
                }
                if ((row & (mask << (level * power))) != 0) break;
            }
        }
        for (int64_t j = 0; j < columns; ++j) {
            for (int level = 1; level < kLevels; ++level) sums[0][j] = sums[0][j] + sums[level][j];
            sums[0][j].store(y + first + j * kVec);
        }
    }
}

static void gelu(const float* x, int64_t size, float* tangents, float* y) {
    for (int64_t i = 0; i < size; i += kVec) {
        Vec tangent;
        gelu(Vec::loadu(x + i), tangent).store(y + i);
        tangent.store(tangents + i);
    }
}

// Multiply ``grad`` by the derivative of gelu at x.
static void gelu_backward(const float* x, const float* tangents, int64_t size, float* grad) {
    const Vec half(0.5f), one(1.0f), beta(kBeta), slope = Vec(3.0f) * Vec(kKappa);
    for (int64_t i = 0; i < size; i += kVec) {
        const Vec v = Vec::loadu(x + i), t = Vec::loadu(tangents + i);
        const Vec inner = beta * vec::fmadd(slope, v * v, one);
        const Vec right = half * v * vec::fnmadd(t, t, one) * inner;
        (Vec::loadu(grad + i) * (half * (one + t) + right)).store(grad + i);
    }
}

static void normalise(const float* x, const float* weight, const float* bias, int64_t n, const Sizes& s, Moments* moments,
                      float* y) {
    for (int64_t i = 0; i < n; ++i) moments[i] = layer_norm(x + i * s.width, weight, bias, s.width, s.eps, y + i * s.width);
}

// Memory of one call. It stays with the thread, since new memory would have to be paged in.
struct Memory {
    Floats floats;
    std::vector<Moments> moments;
    std::vector<Activations> layers;
    float *x, *y, *grad, *narrow, *wide, *logits, *space, *weight;
    Moments* last;

    void prepare(const Sizes& s, const Part& p) {
        const int64_t n = p.rows * p.length, d = s.width, widest = std::max(3 * d, s.inner);
        const int64_t layer = n * (6 * d + 3 * d + 3 * s.inner) + n * s.heads;
        const int64_t head = attention_space(p.length, d / s.heads);
        const int64_t largest = std::max({s.width * widest, s.vocabulary * d, s.context * d});
        const int64_t pieces = 10 * s.layers + 8;  // each may need 15 floats to begin at a multiple of 64 bytes
        const int64_t total = s.layers * layer + n * (4 * d + widest) + head + s.chunk * s.vocabulary + largest;
        if (int64_t(floats.size()) < total + 15 * pieces) floats.resize(total + 15 * pieces);
        moments.resize((2 * s.layers + 1) * n);
        layers.resize(s.layers);
        float* next = floats.data();
        const auto take = [&](int64_t size) {
            float* at = next;
            next += (size + 15) / 16 * 16;
            return at;
        };
        for (int64_t i = 0; i < s.layers; ++i) {
            Activations& l = layers[i];
            for (float** narrow_array : {&l.x, &l.a, &l.attended, &l.middle, &l.b}) *narrow_array = take(n * d);
            l.qkv = take(n * 3 * d), l.normalisers = take(n * s.heads);
            for (float** wide_array : {&l.wide, &l.tangents, &l.activated}) *wide_array = take(n * s.inner);
            l.first = &moments[2 * i * n], l.second = l.first + n;
        }
        last = &moments[2 * s.layers * n];
        x = take(n * d), y = take(n * d), space = take(head);
        grad = take(n * d), narrow = take(n * d), wide = take(n * widest);
        logits = take(s.chunk * s.vocabulary), weight = take(largest);
    }
};

static Head head_of(const Sizes& s, const Part& p, const float* qkv, int64_t row, int64_t head) {
    const float* q = qkv + row * p.length * 3 * s.width + head * (s.width / s.heads);
    return {q, q + s.width, q + 2 * s.width, p.length, s.width / s.heads, 3 * s.width, s.width};
}

// Run all blocks and the last layer norm; the hidden states [N, width] are work.y.
static void forward(const Sizes& s, const Tensors& w, const Part& p, Memory& work) {
    const int64_t n = p.rows * p.length, d = s.width, head_width = d / s.heads;
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < d; ++j) work.layers[0].x[i * d + j] = w.wte[p.ids[i] * d + j] + w.wpe[i % p.length * d + j];
    for (int64_t i = 0; i < s.layers; ++i) {
        const LayerTensors& m = w.layer[i];
        const Activations& l = work.layers[i];
        float* out = i + 1 < s.layers ? work.layers[i + 1].x : work.x;
        normalise(l.x, m.ln_1_weight, m.ln_1_bias, n, s, l.first, l.a);
        linear(l.a, m.c_attn_weight, m.c_attn_bias, n, d, 3 * d, l.qkv);
        for (int64_t row = 0; row < p.rows; ++row)
            for (int64_t head = 0; head < s.heads; ++head)
                attend(head_of(s, p, l.qkv, row, head), work.space, l.attended + row * p.length * d + head * head_width,
                       l.normalisers + (row * s.heads + head) * p.length);
        linear(l.attended, m.attn_proj_weight, m.attn_proj_bias, n, d, d, l.middle);
        add(l.middle, l.x, n * d);
        normalise(l.middle, m.ln_2_weight, m.ln_2_bias, n, s, l.second, l.b);
        linear(l.b, m.c_fc_weight, m.c_fc_bias, n, d, s.inner, l.wide);
        gelu(l.wide, n * s.inner, l.tangents, l.activated);
        linear(l.activated, m.mlp_proj_weight, m.mlp_proj_bias, n, s.inner, d, out);
        add(out, l.middle, n * d);
    }
    normalise(work.x, w.ln_weight, w.ln_bias, n, s, work.last, work.y);
}

// Write the probabilities of the targets, the gradient of the loss with respect to the hidden states, and that of the
// table, chunk by chunk, as in loss.py.
static void loss(const Sizes& s, const Tensors& w, const Part& p, Memory& work, float* grad_table) {
    const int64_t n = p.rows * p.length, d = s.width, vocabulary = s.vocabulary;
    for (int64_t first = 0; first < n; first += s.chunk) {
        const int64_t rows = std::min(s.chunk, n - first);
        float *x = work.y + first * d, *grad = work.narrow + first * d;
        matmul(false, true, rows, vocabulary, d, x, w.wte, 0.0f, work.logits);
        for (int64_t i = 0; i < rows; ++i) {
            float* row = work.logits + i * vocabulary;
            softmax(row, vocabulary);
            p.probabilities[first + i] = row[p.targets[first + i]];
            row[p.targets[first + i]] += -1.0f;
        }
        matmul(false, false, rows, d, vocabulary, work.logits, w.wte, 0.0f, grad);
        for (int64_t i = 0; i < rows; ++i) {
            const Vec scale(p.scale[first + i]);
            for (float* row : {grad + i * d, x + i * d}) vec::map<float>([&](Vec v) { return v * scale; }, row, row, d);
        }
        matmul(true, false, vocabulary, d, rows, work.logits, x, 0.0f, first == 0 ? grad_table : work.weight);
        if (first > 0) add(grad_table, work.weight, vocabulary * d);
    }
}

// The gradients of x @ weight + bias: of the weight and the bias, and of x.
static void linear_backward(const float* grad, const float* x, const float* weight, int64_t rows, int64_t in, int64_t out,
                            float* grad_weight, float* grad_bias, float* grad_x) {
    sum_rows(grad, rows, out, grad_bias);
    matmul(true, false, in, out, rows, x, grad, 0.0f, grad_weight);
    matmul(false, true, rows, in, out, grad, weight, 0.0f, grad_x);
}

// Turn work.grad, the gradient of the output of layer i, into that of its input.
static void layer_backward(const Sizes& s, const LayerTensors& m, const LayerTensors& g, const Part& p, const Activations& l,
                           Memory& work) {
    const int64_t n = p.rows * p.length, d = s.width, head_width = d / s.heads;
    float *grad = work.grad, *narrow = work.narrow, *wide = work.wide, *other = work.y;
    linear_backward(grad, l.activated, m.mlp_proj_weight, n, s.inner, d, g.mlp_proj_weight, g.mlp_proj_bias, wide);
    gelu_backward(l.wide, l.tangents, n * s.inner, wide);
    linear_backward(wide, l.b, m.c_fc_weight, n, d, s.inner, g.c_fc_weight, g.c_fc_bias, narrow);
    layer_norm_backward(narrow, l.middle, m.ln_2_weight, l.second, n, d, other, g.ln_2_weight, g.ln_2_bias);
    add(grad, other, n * d);
    linear_backward(grad, l.attended, m.attn_proj_weight, n, d, d, g.attn_proj_weight, g.attn_proj_bias, narrow);
    for (int64_t row = 0; row < p.rows; ++row)
        for (int64_t head = 0; head < s.heads; ++head) {
            const int64_t at = row * p.length * d + head * head_width;
            float* q = wide + 3 * row * p.length * d + head * head_width;
            attend_backward(head_of(s, p, l.qkv, row, head), narrow + at, l.attended + at,
                            l.normalisers + (row * s.heads + head) * p.length, work.space, q, q + d, q + 2 * d);
        }
    linear_backward(wide, l.a, m.c_attn_weight, n, d, 3 * d, g.c_attn_weight, g.c_attn_bias, narrow);
    layer_norm_backward(narrow, l.x, m.ln_1_weight, l.first, n, d, other, g.ln_1_weight, g.ln_1_bias);
    add(grad, other, n * d);
}

static void embedding_backward(const Sizes& s, const Part& p, Memory& work, const Tensors& g) {
    const int64_t d = s.width, positions = p.length * d;
    std::fill_n(work.weight, s.vocabulary * d, 0.0f);
    for (int64_t i = 0; i < p.rows * p.length; ++i) add(work.weight + p.ids[i] * d, work.grad + i * d, d);
    add(g.wte, work.weight, s.vocabulary * d);
    sum_rows(work.grad, p.rows, positions, g.wpe);
    std::fill_n(g.wpe + positions, s.context * d - positions, 0.0f);
}

static thread_local Memory memory;

extern "C" {

// Write the gradients of the sum of scale times the cross-entropy, and the probabilities of the targets.
void gradients(const Sizes* s, const Tensors* w, const Part* p, const Tensors* g) {
    Memory& work = memory;
    work.prepare(*s, *p);
    forward(*s, *w, *p, work);
    loss(*s, *w, *p, work, g->wte);
    layer_norm_backward(work.narrow, work.x, w->ln_weight, work.last, p->rows * p->length, s->width, work.grad,
                        g->ln_weight, g->ln_bias);
    for (int64_t i = s->layers - 1; i >= 0; --i) layer_backward(*s, w->layer[i], g->layer[i], *p, work.layers[i], work);
    embedding_backward(*s, *p, work, *g);
}
}
