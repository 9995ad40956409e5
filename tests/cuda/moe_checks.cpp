#include "tests/cuda/moe_checks.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

void must(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  printf("%s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}

template <class T> device_array<T>::device_array(size_t n) : count(n) {
  must(cudaMalloc((void **)&data, (n ? n : 1) * sizeof(T)), "cudaMalloc");
  must(cudaMemset(data, 0xa5, (n ? n : 1) * sizeof(T)), "cudaMemset");
}
template <class T>
device_array<T>::device_array(const std::vector<T> &host) : device_array(host.size()) {
  if (count > 0)
    must(cudaMemcpy(data, host.data(), count * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
}
template <class T> device_array<T>::~device_array() { cudaFree(data); }
template <class T> std::vector<T> device_array<T>::host() const {
  std::vector<T> to(count);
  if (count > 0)
    must(cudaMemcpy(to.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), "a kernel");
  return to;
}
template struct device_array<float>;
template struct device_array<int32_t>;
template struct device_array<uint16_t>;
template struct device_array<unsigned char>;

uint32_t random_bits(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (uint32_t)(z >> 32);
}
float random_value(uint64_t *state) { return (float)random_bits(state) / 2147483648.0f - 1; }

uint16_t narrow_bits(float value, enum dtype type) {
  return type == DT_BF16 ? bf16_from_f32(value) : f16_from_f32(value);
}
float widen_bits(uint16_t bits, enum dtype type) {
  return type == DT_BF16 ? f32_from_bf16(bits) : f32_from_f16(bits);
}

double activation_of(enum cuda_activation activation, double first, double up) {
  switch (activation) {
  case CUDA_GELU:
    return first / 2 * (1 + tanh(0.7978845608028654 * (first + 0.044715 * first * first * first)));
  case CUDA_RELU:
    return first < 0 ? 0 : first;
  case CUDA_SILU:
    return first / (1 + exp(-first));
  case CUDA_PAIRED:
    return first / (1 + exp(-first)) * up;
  default:
    return first;
  }
}

/* Values as a type has them: their bytes, and what they mean. */
struct typed {
  enum dtype type;
  std::vector<unsigned char> bytes;
  std::vector<float> value;
  typed(enum dtype of, size_t n) : type(of), bytes(n * size()), value(n) {}
  size_t size() const { return type == DT_F32 ? 4 : 2; }
  void set(size_t i, float v) {
    uint16_t bits = type == DT_F32 ? 0 : narrow_bits(v, type);
    value[i] = type == DT_F32 ? v : widen_bits(bits, type);
    memcpy(&bytes[i * size()], type == DT_F32 ? (void *)&value[i] : &bits, size());
  }
  void read(const std::vector<unsigned char> &from) {
    bytes = from;
    for (size_t i = 0; i < value.size(); i++) {
      uint16_t bits;
      memcpy(&bits, &bytes[i * size() / (type == DT_F32 ? 2 : 1)], 2);
      if (type == DT_F32)
        memcpy(&value[i], &bytes[4 * i], 4);
      else
        value[i] = widen_bits(bits, type);
    }
  }
  void random(uint64_t *state, float scale) {
    for (size_t i = 0; i < value.size(); i++) set(i, scale * random_value(state));
  }
};

struct product_case {
  const char *name;
  enum dtype type, y_type;
  enum cuda_activation activation;
  int in, out, pad; /* ldy = out + pad */
  bool gather, bias;
  std::vector<int> counts; /* rows of each expert; one: a dense product */
};

static const product_case cases[] = {
    {"swiglu", DT_BF16, DT_BF16, CUDA_PAIRED, 96, 200, 0, true, false, {5, 0, 130, 1}},
    {"swiglu dense", DT_BF16, DT_BF16, CUDA_PAIRED, 136, 136, 0, false, true, {150}},
    {"swiglu odd", DT_F16, DT_F16, CUDA_PAIRED, 72, 77, 2, true, true, {3, 140, 0, 0, 9}},
    {"gelu", DT_BF16, DT_BF16, CUDA_GELU, 64, 264, 8, true, true, {129, 0, 7}},
    {"gelu f16", DT_F16, DT_F16, CUDA_GELU, 8, 40, 0, true, true, {17, 3}},
    {"rows", DT_BF16, DT_F32, CUDA_LINEAR, 328, 152, 0, false, true, {0, 257, 2, 30}},
    {"rows bf16", DT_BF16, DT_BF16, CUDA_LINEAR, 72, 136, 0, false, false, {1, 0, 259}},
    {"rows f16", DT_F16, DT_F32, CUDA_LINEAR, 200, 91, 3, false, true, {40, 9}},
    {"dense", DT_BF16, DT_F32, CUDA_LINEAR, 192, 144, 0, false, true, {300}},
    {"many tiles", DT_BF16, DT_BF16, CUDA_GELU, 80, 392, 0, false, true, {700, 3, 300}},
    {"many tiles of few inputs", DT_BF16, DT_F32, CUDA_LINEAR, 8, 776, 0, false, true, {0, 640}},
    {"silu", DT_BF16, DT_BF16, CUDA_SILU, 64, 264, 8, true, true, {129, 0, 7}},
    {"relu", DT_F16, DT_F16, CUDA_RELU, 64, 61, 3, false, true, {33}},
    {"odd inputs", DT_BF16, DT_BF16, CUDA_PAIRED, 37, 45, 0, true, true, {10, 70}},
    {"odd inputs rows", DT_F16, DT_F32, CUDA_LINEAR, 45, 37, 1, false, true, {10, 0, 70}},
    {"f32 swiglu", DT_F32, DT_F32, CUDA_PAIRED, 70, 50, 1, true, true, {66, 0, 3}},
    {"f32 gelu", DT_F32, DT_F32, CUDA_GELU, 33, 130, 0, true, true, {20, 65}},
    {"f32 router", DT_F32, DT_F32, CUDA_LINEAR, 72, 11, 0, false, false, {77}},
    {"f32 router odd", DT_F32, DT_F32, CUDA_LINEAR, 71, 3, 0, false, true, {35}},
    {"f32 dense", DT_F32, DT_F32, CUDA_RELU, 40, 1450, 0, false, true, {1400}},
};

static int sum_of(const std::vector<int> &counts) {
  int sum = 0;
  for (int count : counts) sum += count;
  return sum;
}

/* What a case needs on both sides. */
struct product_data {
  const product_case &c;
  int rows, x_rows, parts;
  typed x, weight, packed;
  std::vector<float> bias, packed_bias;
  std::vector<int32_t> offset, token;
  explicit product_data(const product_case &from)
      : c(from), rows(sum_of(c.counts)), x_rows(c.gather ? 29 : rows + 4),
        parts(c.activation == CUDA_PAIRED ? 2 : 1), x(c.type, (size_t)x_rows * c.in),
        weight(c.type, c.counts.size() * parts * c.out * c.in),
        packed(c.type, c.counts.size() * total() * c.in), bias(c.counts.size() * parts * c.out),
        packed_bias(c.counts.size() * total()) {
    uint64_t state = (uint64_t)c.in * 1000 + c.out;
    x.random(&state, 1);
    weight.random(&state, 2 / sqrtf((float)c.in));
    for (float &b : bias) b = c.bias ? random_value(&state) : 0;
    offset.push_back(0);
    for (int count : c.counts) offset.push_back(offset.back() + count);
    for (int r = 0; r < rows + 4; r++)
      token.push_back(c.gather ? (int)(random_bits(&state) % (unsigned)x_rows) : r);
    pack();
  }
  int total() const { return parts == 2 ? cuda_paired_rows(c.out) : c.out; }
  /* By the kernel that packs, whose result is what products are right for. */
  void pack() {
    for (size_t e = 0; e < c.counts.size(); e++) {
      size_t n = (size_t)parts * c.out, from = e * n * c.in, to = e * total() * c.in;
      if (parts == 1) {
        for (size_t i = 0; i < n * c.in; i++) packed.set(to + i, weight.value[from + i]);
        for (size_t i = 0; i < n; i++) packed_bias[e * n + i] = bias[e * n + i];
        continue;
      }
      std::vector<float> raw(&weight.value[from], &weight.value[from] + n * c.in);
      std::vector<float> raw_bias(&bias[e * n], &bias[e * n] + n);
      device_array<float> src(raw), src_bias(raw_bias), dst_bias((size_t)total());
      device_array<unsigned char> dst((size_t)total() * c.in * packed.size());
      must(cuda_pack_paired(nullptr, dst.data, c.type, src.data, c.out, c.in), "cuda_pack_paired");
      must(cuda_pack_paired(nullptr, dst_bias.data, DT_F32, src_bias.data, c.out, 1),
           "cuda_pack_paired");
      typed part(c.type, (size_t)total() * c.in);
      part.read(dst.host());
      for (size_t i = 0; i < part.value.size(); i++) packed.set(to + i, part.value[i]);
      std::vector<float> packed_part = dst_bias.host();
      memcpy(&packed_bias[e * total()], packed_part.data(), packed_part.size() * 4);
    }
  }
  double dot(int r, size_t row, int e, int o) const {
    const float *a = &x.value[(size_t)token[r] * c.in], *b = &weight.value[(row + o) * c.in];
    double sum = bias[(size_t)e * parts * c.out + o];
    for (int i = 0; i < c.in; i++) sum += (double)a[i] * b[i];
    return sum;
  }
  double expected(int r, int e, int o) const {
    size_t row = (size_t)e * parts * c.out;
    double first = dot(r, row, e, o), up = parts == 2 ? dot(r, row, e, c.out + o) : 0;
    return activation_of(c.activation, first, up);
  }
};

static double limit_of(const product_case &c) {
  if (c.y_type == DT_F32) return c.type == DT_F32 ? 1e-6 : 2e-6;
  return c.y_type == DT_BF16 ? 4e-3 : 5e-4;
}

/* ||y - expected|| / ||expected||; infinity if anything else than the results was written. */
static double product_error(const product_data &d, const typed &y, int ldy) {
  const product_case &c = d.c;
  double error = 0, norm = 0;
  for (size_t e = 0; e < c.counts.size(); e++)
    for (int r = d.offset[e]; r < d.offset[e + 1]; r++)
      for (int o = 0; o < c.out; o++) {
        double want = d.expected(r, (int)e, o), off = y.value[(size_t)r * ldy + o] - want;
        error += off * off;
        norm += want * want;
      }
  for (size_t i = 0; i < y.value.size(); i++) {
    bool result = (int)(i / ldy) < d.rows && (int)(i % ldy) < c.out;
    for (size_t b = 0; b < y.size() && !result; b++)
      if (y.bytes[i * y.size() + b] != 0xa5) return INFINITY;
  }
  return sqrt(error / norm);
}

/* The arrays of a case on the device. */
struct product_arrays {
  device_array<unsigned char> x, weight, result;
  device_array<float> bias;
  device_array<int32_t> offset, token;
  struct cuda_product p;
  product_arrays(const product_data &d, size_t y_bytes)
      : x(d.x.bytes), weight(d.packed.bytes), result(y_bytes), bias(d.packed_bias),
        offset(d.offset), token(d.token) {
    const product_case &c = d.c;
    bool grouped = c.counts.size() > 1;
    p = {c.type,
         c.y_type,
         c.activation,
         c.in,
         c.out,
         (int)c.counts.size(),
         grouped ? d.rows + 4 : d.rows,
         x.data,
         d.x_rows,
         c.in,
         grouped ? offset.data : nullptr,
         c.gather ? token.data : nullptr,
         weight.data,
         c.bias ? bias.data : nullptr,
         (int64_t)d.total() * c.in,
         d.total(),
         result.data,
         c.out + c.pad};
  }
};

static int report(const char *what, const char *name, enum cuda_product_kernel kernel, bool good,
                  double error, double limit, int verbose) {
  static const char *const names[] = {"best", "simt", "sm80", "sm90"};
  if (!good || verbose)
    printf("%s %s %s by %s: error %.2e, limit %.0e\n", good ? "ok" : "FAILED", what, name,
           names[kernel], error, limit);
  return !good;
}

/* The bits of the last expert's rows are the same without the other experts. */
static int check_alone(const product_data &d, const typed &y, enum cuda_product_kernel kernel,
                       int verbose) {
  const product_case &c = d.c;
  size_t last = c.counts.size() - 1, row_bytes = y.size() * (c.out + c.pad);
  product_arrays a(d, y.bytes.size());
  a.p.experts = 1;
  a.p.offset += last;
  a.p.weight = a.weight.data + last * d.total() * c.in * d.x.size();
  if (c.bias) a.p.bias += last * d.total();
  must(cuda_multiply_by(nullptr, &a.p, kernel), c.name);
  std::vector<unsigned char> got = a.result.host();
  size_t from = d.offset[last] * row_bytes, bytes = c.counts[last] * row_bytes;
  bool good = !memcmp(got.data() + from, y.bytes.data() + from, bytes);
  return report("alone", c.name, kernel, good, 0, 0, verbose);
}

static int check_product(const product_data &d, enum cuda_product_kernel kernel, int verbose) {
  const product_case &c = d.c;
  int ldy = c.out + c.pad;
  typed y(c.y_type, (size_t)(d.rows + 4) * ldy);
  product_arrays a(d, y.bytes.size());
  cudaError_t error = cuda_multiply_by(nullptr, &a.p, kernel);
  if (error == cudaErrorNotSupported) return 0;
  must(error, c.name);
  y.read(a.result.host());
  double off = product_error(d, y, ldy);
  int failed = report("product", c.name, kernel, off <= limit_of(c), off, limit_of(c), verbose);
  return failed + (c.counts.size() > 1 ? check_alone(d, y, kernel, verbose) : 0);
}

int check_products(int verbose) {
  int failed = 0;
  for (const product_case &c : cases) {
    product_data d(c);
    for (int kernel = CUDA_PRODUCT_BEST; kernel <= CUDA_PRODUCT_SM90; kernel++)
      failed += check_product(d, (enum cuda_product_kernel)kernel, verbose);
  }
  return failed;
}
