// Calls the operators for ONNX Runtime as a graph of a stranger would: shapes that do not fit, inputs that are missing,
// attributes and bounds of texts of any value, and memory that runs out. Usage: fuzz_operators SEED SECONDS
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "cpu_ops/kernels.h"
#include "fake_engine.h"

extern "C" bgert::ort::Status* RegisterCustomOps(bgert::ort::SessionOptions* options, const bgert::ort::ApiBase* base);

namespace {
std::atomic<unsigned> g_no_memory = 0;  // the how many-th allocation from now on fails; 0: none
}

// What the operators work in is aligned, and nothing else is.
void* operator new(std::size_t size, std::align_val_t alignment) {
  if (g_no_memory.load() != 0 && g_no_memory.fetch_sub(1) == 1) throw std::bad_alloc();
  const auto step = static_cast<std::size_t>(alignment);
  void* memory = size > (std::size_t{1} << 32) ? nullptr : std::aligned_alloc(step, (size + step - 1) / step * step);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using namespace bgert::fake;
using Shape = std::vector<std::int64_t>;

std::mt19937_64 rng;
std::size_t below(std::size_t n) { return static_cast<std::size_t>(rng() % n); }
bool chance(unsigned percent) { return below(100) < percent; }

const Engine g_engine;
const ApiBase g_base{[](std::uint32_t) { return g_engine.table(); }, []() -> const char* { return "fake"; }};

struct Input {
  Shape shape;
  ElementType type;
};

/// A call that fits: inputs in order, attributes, bounds of texts.
struct Plan {
  std::string name;
  std::vector<Input> inputs;
  std::vector<std::int32_t> cuts;  // what an input of int32 bounds or positions holds
  std::size_t cuts_input = static_cast<std::size_t>(-1);
  std::vector<std::int32_t> seen;  // what input 4 of attention holds that is told its keys
  KernelInfo info;
};

bool ends_with(const std::string& text, const char* end) {
  return text.size() >= std::strlen(end) && text.compare(text.size() - std::strlen(end), std::string::npos, end) == 0;
}

Plan plan_of(const CustomOp* op) {
  Plan plan;
  plan.name = op->GetName(op);
  const auto rows = static_cast<std::int64_t>(below(4) == 0 ? below(130) : 1 + below(12));
  std::int64_t columns = 4 * static_cast<std::int64_t>(1 + below(20));
  constexpr auto kPanel = static_cast<std::int64_t>(bgert::kPanelColumns);
  std::int64_t wide = kPanel * static_cast<std::int64_t>(1 + below(3));
  const auto add = [&](Shape shape) {
    plan.inputs.push_back({std::move(shape), op->GetInputType(op, plan.inputs.size())});
  };
  plan.cuts = {0};
  while (plan.cuts.back() < rows) {
    const auto left = static_cast<std::size_t>(rows - plan.cuts.back());
    plan.cuts.push_back(plan.cuts.back() + 1 + static_cast<std::int32_t>(below(left)));
  }
  const auto bounds = static_cast<std::int64_t>(plan.cuts.size());
  if (plan.name.starts_with("Packed")) {
    const auto heads = static_cast<std::int64_t>(1 + below(3));
    columns *= heads;
    const bool local = plan.name.starts_with("PackedLocal");
    if (local) plan.info.whole["window"] = static_cast<std::int64_t>(1 + below(80));
    add({chance(30) && !local ? bounds - 1 : rows, columns});
    add({rows, columns});
    add({rows, columns});
    plan.cuts_input = 3;
    add({bounds});
    if (plan.name.starts_with("PackedRelative")) {
      const std::int64_t longest = std::max<std::int64_t>(rows, 1) + static_cast<std::int64_t>(below(4));
      add({heads, 2 * longest - 1});  // a distance each way, and none
    }
    if (plan.name.find("Seen") != std::string::npos) {
      plan.inputs[0].shape[0] = rows;
      add({bounds - 1});
      for (std::size_t text = 0; text + 1 < plan.cuts.size(); ++text) {
        const std::int32_t length = plan.cuts[text + 1] - plan.cuts[text];
        const bool hidden = local && length > plan.info.whole["window"] + 1;
        plan.seen.push_back(hidden ? length : 1 + static_cast<std::int32_t>(below(static_cast<std::size_t>(length))));
      }
    }
    plan.info.whole["num_heads"] = heads;
  } else if (plan.name.starts_with("AddLayerNorm")) {
    add({rows, columns});
    add({rows, columns});
    add({columns});
    add({columns});
    if (ends_with(plan.name, "Int8")) add({columns});
    plan.info.floats["epsilon"] = 1e-5f;
  } else if (plan.name == "Gelu") {
    add({rows, columns});
  } else if (plan.name == "Rotary") {
    const std::int64_t size = 2 * static_cast<std::int64_t>(1 + below(24));
    add({rows, size * static_cast<std::int64_t>(1 + below(3))});
    plan.cuts.resize(static_cast<std::size_t>(rows) + 1);
    for (std::int32_t& position : plan.cuts) position = static_cast<std::int32_t>(below(40));
    plan.cuts_input = 1;
    add({rows});
    add({40 + static_cast<std::int64_t>(below(3)), size});
  } else if (plan.name == "MeanPool" || plan.name == "MaxPool") {
    add({rows, columns});
    plan.cuts_input = 1;
    add({bounds});
  } else {
    const bool bytes = ends_with(plan.name, "Int8");
    const bool gated = plan.name.find("glu") != std::string::npos;
    const std::int64_t out = wide;
    if (gated) wide *= 2;
    add({rows, bytes ? columns + static_cast<std::int64_t>(bgert::kRowScaleBytes) : columns});
    if (chance(50)) {
      add({wide / kPanel, columns * kPanel});
    } else {
      add({columns * wide});
    }
    if (bytes) {
      add({wide});
      add({wide});
    }
    add({wide});
    if (bytes && plan.name != "LinearInt8") add({out});
  }
  if (plan.inputs.size() != op->GetInputTypeCount(op)) {
    std::fprintf(stderr, "FAILED: %s has other inputs than the fuzzer knows\n", plan.name.c_str());
    std::abort();
  }
  return plan;
}

std::int64_t hostile_dimension(std::int64_t old) {
  static const std::vector<std::int64_t> some = {
      0,          1,          2,          8,
      4096,       1LL << 31,  1LL << 32,  1LL << 61,
      1LL << 62,  std::numeric_limits<std::int64_t>::max()};
  switch (below(4)) {
    case 0:
      return old < (1LL << 40) ? old + 1 : old;
    case 1:
      return old > 0 ? old - 1 : 0;
    default:
      return some[below(some.size())];
  }
}

/// Spoils a shape; what cannot be held in memory gets a dimension of 0, as then it holds nothing.
void spoil(Shape& shape) {
  switch (below(6)) {
    case 0:
      shape.push_back(chance(50) ? 0 : 1);
      break;
    case 1:
      if (!shape.empty()) shape.pop_back();
      break;
    case 2:
      std::reverse(shape.begin(), shape.end());
      break;
    case 3:
      shape.insert(shape.begin(), chance(50) ? 0 : 1);
      break;
    default:
      if (!shape.empty()) {
        std::int64_t& dimension = shape[below(shape.size())];
        dimension = hostile_dimension(dimension);
      }
  }
  std::size_t elements = 1;
  for (const std::int64_t dimension : shape) {
    if (__builtin_mul_overflow(elements, static_cast<std::size_t>(dimension), &elements)) elements = kMostOutput + 1;
  }
  if (elements > kMostOutput) shape.push_back(0);
  if (elements > kMostOutput && shape.size() > 2) shape.erase(shape.begin());
  elements = 1;
  for (const std::int64_t dimension : shape) elements *= static_cast<std::size_t>(dimension);
  if (elements > kMostOutput) shape = {0};
}

Value make_value(const Input& input) {
  std::size_t elements = 1;
  for (const std::int64_t dimension : input.shape) elements *= static_cast<std::size_t>(dimension);
  const std::size_t bytes = elements * size_of(input.type);
  // A buffer of exactly this size on the heap, so that the sanitizer sees a read past its end.
  Value value{input.shape, std::make_unique<unsigned char[]>(bytes)};
  const bool numbers = input.type == kFloat && chance(80);
  std::normal_distribution<float> normal(0.0f, chance(90) ? 2.0f : 1e20f);
  for (std::size_t i = 0; i < elements && numbers; ++i) {
    const float number = normal(rng);
    std::memcpy(value.bytes.get() + 4 * i, &number, sizeof number);
  }
  if (!numbers) std::generate_n(value.bytes.get(), bytes, [] { return static_cast<unsigned char>(below(256)); });
  return value;
}

void spoil(Plan& plan) {
  static const std::vector<std::int64_t> heads = {0, -1, 7, 1000, std::numeric_limits<std::int64_t>::min(), 1LL << 62};
  for (std::size_t i = 1 + below(2); i > 0; --i) {
    switch (below(8)) {
      case 0:
        if (!plan.info.whole.empty()) plan.info.whole["num_heads"] = heads[below(heads.size())];
        if (plan.info.whole.contains("window") && chance(50)) plan.info.whole["window"] = heads[below(heads.size())];
        if (chance(10)) plan.info = {};
        break;
      case 1: {
        const auto cut = static_cast<std::int32_t>(chance(50) ? below(200) : rng());
        std::vector<std::int32_t>& bounds = plan.seen.empty() || chance(50) ? plan.cuts : plan.seen;
        bounds[below(bounds.size())] = cut;
        break;
      }
      default:
        spoil(plan.inputs[below(plan.inputs.size())].shape);
    }
  }
}

void expect(bool good, const char* what, const Plan& plan, const Status* status) {
  if (good) return;
  std::fprintf(stderr, "FAILED: %s: %s%s%s\n", plan.name.c_str(), what, status != nullptr ? ": " : "",
               status != nullptr ? status->message.c_str() : "");
  for (const Input& input : plan.inputs) {
    std::fprintf(stderr, " [");
    for (const std::int64_t dimension : input.shape) std::fprintf(stderr, " %lld", static_cast<long long>(dimension));
    std::fprintf(stderr, " ]");
  }
  std::fprintf(stderr, "\n");
  std::abort();
}

bool same(const Value& a, const Value& b, ElementType type) {
  std::size_t bytes = size_of(type);
  for (const std::int64_t dimension : a.shape) bytes *= static_cast<std::size_t>(dimension);
  return a.shape == b.shape && std::memcmp(a.bytes.get(), b.bytes.get(), bytes) == 0;
}

void check(const CustomOp* op) {
  Plan plan = plan_of(op);
  const bool fits = chance(25);
  if (!fits) spoil(plan);
  std::vector<Value> values;
  for (const Input& input : plan.inputs) values.push_back(make_value(input));
  const auto fill = [&](std::size_t input, const std::vector<std::int32_t>& numbers) {
    if (input >= values.size() || numbers.empty()) return;
    std::size_t count = 1;
    for (const std::int64_t dimension : values[input].shape) count *= static_cast<std::size_t>(dimension);
    std::memcpy(values[input].bytes.get(), numbers.data(), std::min(count, numbers.size()) * sizeof numbers[0]);
  };
  fill(plan.cuts_input, plan.cuts);
  fill(4, plan.seen);
  KernelContext context;
  for (Value& value : values) context.inputs.push_back(&value);
  bool whole = fits;
  if (!fits && chance(10)) context.inputs[below(values.size())] = nullptr;
  if (!fits && chance(5)) context.inputs.pop_back();
  if (chance(5)) {
    context.outputs_missing = true;
    whole = false;
  }
  context.threads = 1 + below(3);
  context.outputs.resize(op->GetOutputTypeCount(op));
  for (std::size_t i = 0; i < context.outputs.size(); ++i) context.output_types.push_back(op->GetOutputType(op, i));

  void* kernel = nullptr;
  Status* status = op->CreateKernelV2(op, g_engine.table(), &plan.info, &kernel);
  if (status == nullptr) {
    const bool starved = chance(10);
    g_no_memory = starved ? static_cast<unsigned>(1 + below(4)) : 0;
    status = op->KernelComputeV2(kernel, &context);
    if (starved && g_no_memory.exchange(0) == 0) whole = false;
    if (status == nullptr) {  // once more, into memory that holds something else: what is not set would differ
      std::vector<Value> first = std::move(context.outputs);
      context.outputs = std::vector<Value>(first.size());
      context.fill = static_cast<unsigned char>(~context.fill);
      expect(op->KernelComputeV2(kernel, &context) == nullptr, "a second run failed", plan, nullptr);
      for (std::size_t i = 0; i < first.size(); ++i) {
        expect(same(first[i], context.outputs[i], context.output_types[i]), "two runs differ", plan, nullptr);
      }
    }
    op->KernelDestroy(kernel);
  }
  expect(infos == 0, "a shape was not given back", plan, status);
  if (whole) expect(status == nullptr, "what fits was refused", plan, status);
  if (context.outputs_missing) expect(status != nullptr, "an output that is missing was not seen", plan, nullptr);
  delete status;
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 5;
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t rounds = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; ++rounds) {
    rng.seed(seed + rounds);
    for (const char* name : bgert::kKernelNames) {
      if (bgert::choose_kernels(name) == nullptr) continue;
      setenv("BGERT_KERNELS", name, 1);
      SessionOptions options;
      if (RegisterCustomOps(&options, &g_base) != nullptr) std::abort();
      for (const CustomOp* op : options.domain->operators) check(op);
    }
  }
  std::printf("seed %llu: %llu rounds of every operator, no failure\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(rounds));
}
