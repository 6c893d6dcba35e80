// All that is compiled with the same options, together: PyTorch's headers take longer to read than this to compile.

#include "attention.cpp"
#include "decoding.cpp"
#include "training.cpp"
