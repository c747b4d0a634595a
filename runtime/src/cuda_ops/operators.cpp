#include "operators.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace bgert::cuda {
namespace {

constexpr int kVector = 8;             // columns that a thread takes at once
constexpr unsigned kNormThreads = 128;
constexpr std::int64_t kMostColumns = 4096;
constexpr float kLog2E = 1.44269504f;

int number(std::int64_t value) { return static_cast<int>(value); }

// Which LayerNorm kernel rows take, and how many blocks: a warp a row where there are enough rows for every
// multiprocessor to have eight, else a block a row (a row's latency is then what a caller waits for).
struct NormLaunch {
  std::string suffix;
  std::int64_t blocks;
  std::size_t shared;
};

NormLaunch norm_launch(const Call& call, std::int64_t rows, std::int64_t columns) {
  if (columns % kVector != 0 || columns < kVector || columns > kMostColumns) {
    call.fail("rows must have a multiple of 8 columns, at most 4096");
  }
  const bool few = rows < 8 * call.node.device.processors() || columns > 1024;
  const std::int64_t threads = few ? 128 : 32;
  std::int64_t vectors = (columns / kVector + threads - 1) / threads;
  if (few && vectors == 3) vectors = 4;
  // Blocks go on to further rows, so that gamma and beta are read once.
  const std::int64_t blocks = few ? rows : std::min<std::int64_t>((rows + 3) / 4, 8ll * call.node.device.processors());
  return {std::string(few ? "_w4_v" : "_w1_v") + std::to_string(vectors), blocks, 2 * 4 * sizeof(float)};
}

void embeddings(const Call& call, bool typed) {
  const Tensor ids = call.matrix(0), words = call.matrix(2), positions = call.matrix(3);
  const std::int64_t rows = ids.elements, columns = words.columns();
  const Tensor index = call.matrix(1, ids.rows(), ids.columns());
  if (positions.columns() != columns || words.rows() < 1 || positions.rows() < 1) call.misfit(3);
  const Tensor gamma = call.vector(4, columns), beta = call.vector(5, columns);
  const void* types = typed ? call.matrix(6, ids.rows(), ids.columns()).data : nullptr;
  const Tensor y = call.output(rows, columns);
  const NormLaunch norm = norm_launch(call, rows, columns);
  call.launch("embedding_layer_norm" + norm.suffix, norm.blocks, 1, kNormThreads, norm.shared, ids.data, index.data,
              types, words.data, positions.data, gamma.data, beta.data, y.data, number(rows), number(columns),
              number(words.rows()), number(positions.rows()), number(call.node.rows_a_type), call.node.epsilon);
}

void product(const Call& call, Epilogue epilogue, Tensor& y) {
  const Tensor x = call.matrix(0), weights = call.matrix(1);
  const Shape shape{x.rows(), x.columns(), weights.rows(), epilogue};
  if (weights.columns() != shape.inputs || shape.inputs < 1 || shape.outputs < 1) call.misfit(1);
  if (shape.inputs % kVector != 0 || shape.outputs % kVector != 0) call.fail("matrices must be multiples of 8");
  const Tensor bias = call.vector(2, shape.outputs);
  y = call.output(shape.rows, shape.outputs);
  multiply(call, shape, {x.data, weights.data, bias.data, y.data});
}

std::int64_t head_size(const Call& call, std::int64_t columns) {
  const std::int64_t size = columns / call.node.num_heads;
  if (size * call.node.num_heads != columns || (size != 32 && size != 64)) {
    call.fail("heads must have 32 or 64 columns");
  }
  return size;
}

std::int64_t texts_of(const Call& call, const Tensor& cu_seqlens, std::size_t index) {
  if (cu_seqlens.elements < 1) call.misfit(index);
  return cu_seqlens.elements - 1;
}

// Queries of a block of attention: 128 where texts are long on average, for keys are then read half as often. A text's
// numbers are the same. BGERT_CUDA_ATTENTION_QUERIES is for measuring.
std::int64_t queries_a_block(std::int64_t tokens, std::int64_t texts) {
  const char* const asked = std::getenv("BGERT_CUDA_ATTENTION_QUERIES");
  if (asked != nullptr && std::strcmp(asked, "64") == 0) return 64;
  if (asked != nullptr && std::strcmp(asked, "128") == 0) return 128;
  return texts > 0 && tokens / texts >= 256 ? 128 : 64;
}

// Every text may end in a tile that is not full.
std::int64_t most_tiles(std::int64_t tokens, std::int64_t texts) {
  return tokens / queries_a_block(tokens, texts) + texts;
}

}  // namespace

void multiply(const Call& call, const Shape& shape, const Operands& operands) {
  if (shape.rows == 0) return;
  Node& node = call.node;
  Blas& blas = node.device.blas();
  const std::lock_guard lock(node.mutex);
  if (node.workspace == nullptr || node.workspace_stream != call.stream) {
    node.workspace = workspace_of(node.device.number(), call.stream);
    node.workspace_stream = call.stream;
  }
  std::unique_ptr<Description>& description = node.products[shape.rows];
  if (description == nullptr) description = std::make_unique<Description>(blas, shape);
  blas.multiply(*description, operands, node.device, call.stream, node.workspace->address());
}

void embedding_layer_norm(const Call& call) { embeddings(call, false); }
void typed_embedding_layer_norm(const Call& call) { embeddings(call, true); }

void add_layer_norm(const Call& call) {
  const Tensor x = call.matrix(0);
  const std::int64_t rows = x.rows(), columns = x.columns();
  const Tensor residual = call.matrix(1, rows, columns);
  const Tensor gamma = call.vector(2, columns), beta = call.vector(3, columns);
  const Tensor y = call.output(rows, columns);
  const NormLaunch norm = norm_launch(call, rows, columns);
  call.launch("add_layer_norm" + norm.suffix, norm.blocks, 1, kNormThreads, norm.shared, x.data, residual.data,
              gamma.data, beta.data, y.data, number(rows), number(columns), call.node.epsilon);
}

void linear(const Call& call) {
  Tensor y;
  product(call, kBias, y);
}

void linear_gelu_tanh(const Call& call) {
  Tensor y;
  product(call, kBiasGelu, y);
}

void linear_gelu(const Call& call) {
  Tensor y;
  product(call, kBias, y);
  const long long vectors = y.elements / kVector;
  const std::int64_t blocks = std::min<std::int64_t>((vectors + 255) / 256, 16ll * call.node.device.processors());
  call.launch("gelu", blocks, 1, 256, 0, y.data, vectors);
}

void attention_tiles(const Call& call) {
  const Tensor cu_seqlens = call.vector(0), ids = call.matrix(1);
  const std::int64_t texts = texts_of(call, cu_seqlens, 0), tokens = ids.elements;
  const std::int64_t tiles = most_tiles(tokens, texts);
  const Tensor y = call.output(tiles, 2);
  call.launch("attention_tiles", tiles > 0 ? 1 : 0, 1, 1024, 32 * sizeof(int), cu_seqlens.data, y.data, number(texts),
              number(tiles), number(queries_a_block(tokens, texts)));
}

void packed_self_attention(const Call& call) {
  const Tensor qkv = call.matrix(0), cu_seqlens = call.vector(1), tiles = call.matrix(2);
  const std::int64_t tokens = qkv.rows(), columns = qkv.columns() / 3, texts = texts_of(call, cu_seqlens, 1);
  if (columns * 3 != qkv.columns()) call.misfit(0);
  if (tiles.rows() != most_tiles(tokens, texts) || tiles.columns() != 2) call.misfit(2);
  const std::int64_t size = head_size(call, columns), queries = queries_a_block(tokens, texts);
  const Tensor y = call.output(tokens, columns);
  const std::size_t shared = static_cast<std::size_t>((queries + 4 * 64) * size * 2);
  call.launch("attention_h" + std::to_string(size) + "_q" + std::to_string(queries), tiles.rows(), call.node.num_heads,
              128, shared, qkv.data, cu_seqlens.data, tiles.data, y.data, number(columns),
              kLog2E / std::sqrt(static_cast<float>(size)));
}

void first_token_attention(const Call& call) {
  const Tensor queries = call.matrix(0), kv = call.matrix(1), cu_seqlens = call.vector(2);
  const std::int64_t texts = texts_of(call, cu_seqlens, 2), columns = queries.columns();
  if (queries.rows() != texts) call.misfit(0);
  if (kv.columns() != 2 * columns) call.misfit(1);
  const std::int64_t size = head_size(call, columns);
  const Tensor y = call.output(texts, columns);
  const std::int64_t groups = 128 * kVector / size;
  const std::size_t shared = static_cast<std::size_t>(groups * (size + 2)) * sizeof(float);
  call.launch("first_token_attention_h" + std::to_string(size), call.node.num_heads, texts, 128, shared, queries.data,
              kv.data, cu_seqlens.data, y.data, number(columns), kLog2E / std::sqrt(static_cast<float>(size)));
}

void first_rows(const Call& call) {
  const Tensor rows = call.matrix(0), cu_seqlens = call.vector(1);
  const std::int64_t texts = texts_of(call, cu_seqlens, 1), columns = rows.columns();
  if (rows.rows() < 1 || columns % kVector != 0) call.misfit(0);
  const Tensor y = call.output(texts, columns);
  call.launch("first_rows", texts, 1, 128, 0, rows.data, cu_seqlens.data, y.data, number(rows.rows()),
              number(columns));
}

void pool(const Call& call) {
  const Tensor rows = call.matrix(0), cu_seqlens = call.vector(1);
  const std::int64_t texts = texts_of(call, cu_seqlens, 1), columns = rows.columns();
  if (columns % kVector != 0 || columns < kVector || columns > kMostColumns) call.misfit(0);
  if (call.node.mean == 0 && rows.rows() != texts) call.misfit(0);
  const Tensor y = call.output(texts, columns);
  const std::int64_t groups = 512 / (columns / kVector);
  const std::size_t shared = static_cast<std::size_t>(groups * columns + 16) * sizeof(float);
  call.launch("pool", texts, 1, 512, shared, rows.data, cu_seqlens.data, y.data, number(columns),
              number(call.node.mean), number(call.node.normalize));
}

}  // namespace bgert::cuda
