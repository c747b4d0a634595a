// Everything that is compiled: a new file of kernels is one more line here.
#include "attention.cu"
#include "embeddings.cu"
#include "first_token.cu"
#include "gelu.cu"
#include "fp8.cu"
#include "layer_norm.cu"
#include "pooling.cu"
