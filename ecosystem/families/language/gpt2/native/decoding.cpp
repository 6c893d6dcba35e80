// Decoding of small GPT-2s on a CPU, with the bits of the operations in transformer.py.
//
// Every sum is in the order of the PyTorch operation that it replaces: matrix products are those of the BLAS in PyTorch,
// exponentials and hyperbolic tangents those of its vector library, and attention adds in the order of its batched
// products of a vector and a matrix. Compiled without fused multiply-adds, which are written out where PyTorch has them.
//
// Rows are independent: the numbers of one do not depend on the others, nor on how many there are.

#include "kernels.h"

constexpr int64_t kLanes = 16;
constexpr int kPanel = 32;           // columns of a panel of a matrix
constexpr int64_t kLeastRows = 4;    // the BLAS sums products of fewer rows in another order
constexpr int64_t kNaiveBelow = 400;  // multiply-adds below which torch.bmm is a plain loop
typedef float Lanes __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef float Eight __attribute__((vector_size(32), aligned(4)));
typedef double EightDoubles __attribute__((vector_size(64)));

struct Layer {  // in the order of transformer.Block, and the panels of its matrices
    const float *ln_1_weight, *ln_1_bias, *c_attn_weight, *c_attn_bias, *attn_proj_weight, *attn_proj_bias;
    const float *ln_2_weight, *ln_2_bias, *c_fc_weight, *c_fc_bias, *mlp_proj_weight, *mlp_proj_bias;
    const float *c_attn_panels, *attn_proj_panels, *c_fc_panels, *mlp_proj_panels;
};

struct Model {  // in the order of compiled.py
    int64_t layers, width, heads, inner, vocabulary, documents, positions;  // positions: a multiple of 16
    const Layer* layer;
    const float *wte, *wpe, *ln_weight, *ln_bias, *wte_panels;
    float* keys;    // [layers, documents, heads, positions / 16, head width, 16]
    float* values;  // [layers, documents, positions, width]
    float eps;
};

struct Texts {  // documents that are being written, in the order of compiled.py
    int64_t* written;    // [positions, documents]
    const float* noise;  // [positions, documents]
    const int64_t *sizes, *limits;  // [documents]: of the start, and of the whole text
    int64_t* lengths;    // [documents]
    bool* open;          // [documents]
    const int64_t* never;  // [nevers]
    int64_t documents, nevers, end;
    float temperature;
};

struct Workspace {
    Floats x, a, wide, logits, scores;
    Workspace(const Model& m, int64_t rows) {
        rows = std::max(rows, kLeastRows);
        x.resize(rows * m.width), a.resize(rows * m.width);
        wide.resize(rows * std::max(3 * m.width, m.inner)), logits.resize(rows * m.vocabulary);
        scores.resize(m.heads * m.positions);
    }
};

// Products of R rows of x [R, in] with a panel [in, 32], added up in order, as the BLAS does up to 128 terms.
template <int R>
static void panel_product(const float* x, const float* panel, const float* bias, int in, int out, int columns, float* y) {
    constexpr int kVectors = kPanel / Vec::size();
    Vec sums[R][kVectors];
    for (auto& row : sums)
        for (Vec& sum : row) sum = Vec(0.0f);
    for (int i = 0; i < in; ++i)
        for (int j = 0; j < kVectors; ++j) {
            const Vec w = Vec::loadu(panel + i * kPanel + j * Vec::size());
            for (int row = 0; row < R; ++row) sums[row][j] = vec::fmadd(Vec(x[row * in + i]), w, sums[row][j]);
        }
    for (int row = 0; row < R; ++row)
        for (int j = 0; j < kVectors; ++j) {
            const int first = j * Vec::size(), count = std::min<int>(columns - first, Vec::size());
            if (count <= 0) break;
            const Vec start = bias ? Vec::loadu(bias + first, count) : Vec(0.0f);
            (sums[row][j] + start).store(y + row * out + first, count);
        }
}

template <int R>
static void few_rows(int rows, const float* x, const float* panel, const float* bias, int in, int out, int columns,
                     float* y) {
    if (rows == R)
        panel_product<R>(x, panel, bias, in, out, columns, y);
    else if constexpr (R > 1)
        few_rows<R - 1>(rows, x, panel, bias, in, out, columns, y);
}

// The product of x [rows, in] with a matrix in panels [out / 32, in, 32], plus a bias, if there is one.
static void product(const float* x, const float* panels, const float* bias, int rows, int in, int out, float* y) {
    constexpr int kRows = Vec::size() == 16 ? 12 : 3;  // as many sums as there are registers
    for (int first = 0; first < out; first += kPanel)
        for (int row = 0; row < rows; row += kRows)
            few_rows<kRows>(std::min(kRows, rows - row), x + row * in, panels + first * in, bias ? bias + first : bias, in,
                            out, out - first, y + row * out + first);
}

// y = bias + x @ weight, for x [rows, in] and weight [in, out].
static void linear(const float* x, const float* weight, const float* panels, const float* bias, int rows, int in, int out,
                   float* y) {
    if (panels) return product(x, panels, bias, rows, in, out, y);
    linear(x, weight, bias, rows, in, out, y);
}

// Normalise ``count`` rows of x; further rows of y are zero, so that they stay finite.
static void normalise(const float* x, const float* weight, const float* bias, const Model& m, int64_t count, float* y) {
    for (int64_t row = 0; row < count; ++row)
        layer_norm(x + row * m.width, weight, bias, m.width, m.eps, y + row * m.width);
    for (int64_t i = count * m.width; i < kLeastRows * m.width; ++i) y[i] = 0;
}

static void gelu(float* x, int64_t size) {
    Vec tangent;
    vec::map<float>([&](Vec v) { return gelu(v, tangent); }, x, x, size);
}

static inline Lanes load(const float* x) { return *reinterpret_cast<const Lanes*>(x); }

// The products of a query with 16 keys [head width, 16], summed in one of the orders of torch.bmm.
static Lanes in_order(const float* q, const float* k, int64_t width) {
    Lanes sum = {};
    for (int64_t i = 0; i < width; ++i) sum += q[i] * load(k + i * kLanes);
    return sum;
}

// Four partial sums over every fourth entry; the first four entries all belong to the first.
static Lanes grouped(const float* q, const float* k, int64_t width) {
    Lanes first = {}, second = {}, third = {}, fourth = {};
    for (int64_t i = 0; i < 4; ++i) first += q[i] * load(k + i * kLanes);
    for (int64_t i = 4; i < width; i += 4) {
        first += q[i] * load(k + i * kLanes);
        second += q[i + 1] * load(k + (i + 1) * kLanes);
        third += q[i + 2] * load(k + (i + 2) * kLanes);
        fourth += q[i + 3] * load(k + (i + 3) * kLanes);
    }
    return (first + third) + (second + fourth);
}

// The order of the last keys, of which there is no group of four: the last four entries are added one by one.
template <bool alternating>
static Lanes remaining(const float* q, const float* k, int64_t width) {
    Lanes sums[4] = {}, others[4] = {};
    for (int64_t i = 0; i < 4; ++i) sums[0] += q[i] * load(k + i * kLanes);
    for (int64_t i = 4; i < width - 4; i += 4)
        for (int64_t j = 0; j < 4; ++j)
            (alternating && i % 8 == 0 ? others : sums)[j] += q[i + j] * load(k + (i + j) * kLanes);
    if (alternating)
        for (int64_t j = 0; j < 4; ++j) sums[j] += others[j];
    Lanes sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    for (int64_t i = width - 4; i < width; ++i) sum += q[i] * load(k + i * kLanes);
    return sum;
}

// The scores of one query against the first ``count`` keys of one head.
static void attention_scores(const float* q, const float* keys, int64_t width, int64_t count, float* scores) {
    const bool naive = width * count < kNaiveBelow;
    for (int64_t first = 0; first < count; first += kLanes) {
        const float* k = keys + first * width;
        *reinterpret_cast<Lanes*>(scores + first) = naive ? in_order(q, k, width) : grouped(q, k, width);
    }
    const int64_t rest = count % 4;
    if (naive || rest == 0) return;
    const int64_t last = (count - 1) / kLanes * kLanes;
    const Lanes alternating = remaining<true>(q, keys + last * width, width);
    const Lanes single = remaining<false>(q, keys + last * width, width);
    for (int64_t i = 0; i < rest; ++i) {
        const int64_t at = count - rest + i;
        scores[at] = i % 2 ? single[at - last] : alternating[at - last];
    }
}

// Sums of the first ``count`` values [positions, width], weighted by the scores of the head that each entry belongs to.
template <int vectors>
static void weighted_values(const Model& m, const float* values, const float* scores, int64_t count, float* y) {
    const int64_t head_width = m.width / m.heads;
    for (int64_t first = 0; first < m.width; first += vectors * kLanes) {
        Lanes sums[vectors] = {};
        const float* weights[vectors];
        for (int j = 0; j < vectors; ++j) weights[j] = scores + (first + j * kLanes) / head_width * m.positions;
        for (int64_t t = 0; t < count; ++t)
            for (int j = 0; j < vectors; ++j)
                sums[j] += weights[j][t] * load(values + t * m.width + first + j * kLanes);
        for (int j = 0; j < vectors; ++j) *reinterpret_cast<Lanes*>(y + first + j * kLanes) = sums[j];
    }
}

static float* keys_of(const Model& m, int64_t layer, int64_t document) {
    return m.keys + (layer * m.documents + document) * m.positions * m.width;
}

static float* values_of(const Model& m, int64_t layer, int64_t document) {
    return m.values + (layer * m.documents + document) * m.positions * m.width;
}

static void store(const Model& m, int64_t layer, int64_t document, int64_t position, const float* k, const float* v) {
    const int64_t head_width = m.width / m.heads;
    float* keys = keys_of(m, layer, document) + position / kLanes * kLanes * head_width + position % kLanes;
    for (int64_t head = 0; head < m.heads; ++head)
        for (int64_t i = 0; i < head_width; ++i)
            keys[head * m.positions * head_width + i * kLanes] = k[head * head_width + i];
    std::memcpy(values_of(m, layer, document) + position * m.width, v, m.width * sizeof(float));
}

static void attend(const Model& m, int64_t layer, int64_t document, int64_t position, const float* qkv, float* scores,
                   float* y) {
    const int64_t head_width = m.width / m.heads, count = position + 1;
    store(m, layer, document, position, qkv + m.width, qkv + 2 * m.width);
    const float* keys = keys_of(m, layer, document);
    for (int64_t head = 0; head < m.heads; ++head) {
        float* row = scores + head * m.positions;
        attention_scores(qkv + head * head_width, keys + head * m.positions * head_width, head_width, count, row);
        softmax(row, count);
    }
    const float* values = values_of(m, layer, document);
    if (m.width % (4 * kLanes) == 0)
        weighted_values<4>(m, values, scores, count, y);
    else
        weighted_values<1>(m, values, scores, count, y);
}

// Read one more token of some documents; leave the logits of the next one in the workspace, [rows, vocabulary].
static void forward(const Model& m, Workspace& work, const int64_t* documents, int64_t count, const int64_t* ids,
                    int64_t position) {
    const int rows = std::max(count, kLeastRows), width = m.width, inner = m.inner, vocabulary = m.vocabulary;
    float *x = work.x.data(), *a = work.a.data(), *wide = work.wide.data();
    for (int64_t row = 0; row < count; ++row)
        for (int64_t i = 0; i < width; ++i) x[row * width + i] = m.wte[ids[row] * width + i] + m.wpe[position * width + i];
    for (int64_t l = 0; l < m.layers; ++l) {
        const Layer& w = m.layer[l];
        normalise(x, w.ln_1_weight, w.ln_1_bias, m, count, a);
        linear(a, w.c_attn_weight, w.c_attn_panels, w.c_attn_bias, rows, width, 3 * width, wide);
        for (int64_t row = 0; row < count; ++row)
            attend(m, l, documents[row], position, wide + row * 3 * width, work.scores.data(), a + row * width);
        linear(a, w.attn_proj_weight, w.attn_proj_panels, w.attn_proj_bias, rows, width, width, wide);
        add(x, wide, count * width);
        normalise(x, w.ln_2_weight, w.ln_2_bias, m, count, a);
        linear(a, w.c_fc_weight, w.c_fc_panels, w.c_fc_bias, rows, width, inner, wide);
        gelu(wide, count * inner);
        linear(wide, w.mlp_proj_weight, w.mlp_proj_panels, w.mlp_proj_bias, rows, inner, width, a);
        add(x, a, count * width);
    }
    normalise(x, m.ln_weight, m.ln_bias, m, count, a);
    if (m.wte_panels) return product(a, m.wte_panels, nullptr, rows, width, vocabulary, work.logits.data());
    matmul(false, true, rows, vocabulary, width, a, m.wte, 0.0f, work.logits.data());
}

// The inverse of the cumulative distribution at a number in [0, 1). Sums are in double precision, rounded to single
// precision where they are compared, like those of torch.cumsum.
static int64_t pick(const float* p, int64_t size, float uniform) {
    constexpr int64_t kBlock = 64;
    double blocks[(1 << 17) / kBlock];
    const int64_t whole = size / kBlock;
    double total = 0;
    for (int64_t block = 0; block < whole; ++block) {
        EightDoubles sums = {};
        for (int64_t i = 0; i < kBlock; i += 8)
            sums += __builtin_convertvector(*reinterpret_cast<const Eight*>(p + block * kBlock + i), EightDoubles);
        blocks[block] = 0;
        for (int i = 0; i < 8; ++i) blocks[block] += sums[i];
        total += blocks[block];
    }
    for (int64_t i = whole * kBlock; i < size; ++i) total += p[i];
    const float limit = float(total) * uniform;
    double sum = 0;
    int64_t block = 0;
    while (block < whole && float(sum + blocks[block]) <= limit) sum += blocks[block++];
    for (int64_t i = block * kBlock; i < size; ++i)
        if (float(sum += p[i]) > limit) return i;
    return size - 1;
}

static int64_t sample(float* logits, int64_t vocabulary, const Texts& t, float uniform) {
    for (int64_t i = 0; i < t.nevers; ++i) logits[t.never[i]] = -INFINITY;
    if (t.temperature != 1.0f)
        for (int64_t i = 0; i < vocabulary; ++i) logits[i] /= t.temperature;
    softmax(logits, vocabulary);
    return pick(logits, vocabulary, uniform);
}

extern "C" {

// Store keys and values [rows, heads, length, head width] of the first positions of documents 0 to rows - 1.
void fill(const Model* m, int64_t layer, int64_t rows, int64_t length, const float* keys, const float* values) {
    const int64_t head_width = m->width / m->heads;
    std::vector<float> k(m->width), v(m->width);
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t t = 0; t < length; ++t) {
            for (int64_t head = 0; head < m->heads; ++head) {
                const int64_t from = ((row * m->heads + head) * length + t) * head_width;
                std::copy_n(keys + from, head_width, k.begin() + head * head_width);
                std::copy_n(values + from, head_width, v.begin() + head * head_width);
            }
            store(*m, layer, row, t, k.data(), v.data());
        }
}

// Read one more token of some documents; write the logits of the next one, [count, vocabulary].
void step(const Model* m, const int64_t* documents, int64_t count, const int64_t* ids, int64_t position, float* logits) {
    Workspace work(*m, count);
    forward(*m, work, documents, count, ids, position);
    std::memcpy(logits, work.logits.data(), count * m->vocabulary * sizeof(float));
}

// Append tokens to open documents, of which ``first`` are written, until ``last`` are, in groups of ``group`` documents
// whose keys and values fit a core's cache.
void advance(const Model* m, const Texts* t, int64_t first, int64_t last, int64_t group) {
    std::vector<int64_t> open, ids(group), rows;
    for (int64_t document = 0; document < t->documents; ++document)
        if (t->open[document]) open.push_back(document);
    Workspace work(*m, group);
    for (int64_t from = 0; from < int64_t(open.size()); from += group) {
        rows.assign(open.begin() + from, open.begin() + std::min<int64_t>(from + group, open.size()));
        for (int64_t position = first; position < last && !rows.empty(); ++position) {
            const int64_t* before = t->written + (position - 1) * t->documents;
            for (size_t row = 0; row < rows.size(); ++row) ids[row] = before[rows[row]];
            forward(*m, work, rows.data(), rows.size(), ids.data(), position);
            size_t kept = 0;
            for (size_t row = 0; row < rows.size(); ++row) {
                const int64_t document = rows[row];
                bool ended = false;
                if (position >= t->sizes[document]) {
                    const int64_t at = position * t->documents + document;
                    const int64_t token = sample(&work.logits[row * m->vocabulary], m->vocabulary, *t, t->noise[at]);
                    t->written[at] = token;
                    ended = token == t->end;
                    if (ended) t->lengths[document] = position;
                }
                t->open[document] = !ended && position + 1 < t->limits[document];
                if (t->open[document]) rows[kept++] = document;
            }
            rows.resize(kept);
        }
    }
}
}
