// Causal attention over whole documents, forward and backward, with the bits of PyTorch's flash attention on a CPU.

#pragma once

#include "kernels.h"

struct Left {  // the left factor of a small product, by its strides
    const float* data;
    int64_t row, column;
};

// c [rows, columns] = a [rows, terms] @ b [terms, columns] (+ c): sums in order of the terms, without any split.
void small_product(Left a, const float* b, int64_t b_row, int64_t rows, int64_t columns, int64_t terms, bool accumulate,
                   float* c, int64_t c_row);

struct Head {  // one head of one document: queries, keys and values [length, head width] in rows of ``row`` floats
    const float *q, *k, *v;
    int64_t length, head_width, row, width;  // width: floats from one position of the output to the next
};

// Work space of both functions, in floats.
int64_t attention_space(int64_t length, int64_t head_width);

// Write the output [length, head width] and the normaliser of every query (log of the sum of exponentials).
void attend(const Head& head, float* space, float* y, float* normalisers);

// Write the gradients of queries, keys and values, laid out like them, from that of the output y.
void attend_backward(const Head& head, const float* grad, const float* y, const float* normalisers, float* space,
                     float* grad_q, float* grad_k, float* grad_v);
