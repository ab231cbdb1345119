// One crafted file for every published attack on a loader of models that we know of
// (docs/security.md lists them): each is refused in one line that names what is wrong, quickly and
// with little memory. A case carries the number of its advisory; a bug like it coming back turns
// that case red.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "runtime/runner/model_loader.h"
#include "runtime/tokenizer/chat_template.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/tiny_model.h"

namespace millrace::testing {
namespace {

using ::testing::HasSubstr;

struct Attack {
  const char* id;    // of the advisory, and what its file did
  const char* says;  // what our error must contain
  std::function<std::string()> bytes;
};

constexpr std::uint64_t Bit(unsigned n) { return std::uint64_t{1} << n; }

// Magic, version and the two counts: 24 bytes.
std::string Head(std::uint64_t tensors, std::uint64_t keys) {
  return "GGUF" + BytesOf(std::uint32_t{3}) + BytesOf(tensors) + BytesOf(keys);
}

// A model in which a key or a tensor is left out and something is put in its place.
std::string Model(const std::string& without, std::function<void(GgufBuilder*)> add) {
  TinyModel model;
  model.without = without;
  model.add = std::move(add);
  return BuildTinyModel(model).Build();
}

std::string ModelWithNumber(const std::string& key, std::uint64_t value) {
  return Model(key, [&](GgufBuilder* b) { b->Add("qwen3moe." + key, value); });
}

std::string ModelWithTensor(GgufBuilder::RawTensor tensor) {
  return Model(tensor.name, [&](GgufBuilder* b) { b->AddRawTensor(tensor); });
}

std::string ModelWithShape(const std::string& name, std::vector<std::int64_t> shape) {
  TinyModel model;
  model.reshape = [&](std::string_view tensor, std::vector<std::int64_t>* out) {
    if (tensor == name) *out = shape;
  };
  return BuildTinyModel(model).Build();
}

// A model whose vocabulary is written by `add`.
std::string ModelWithTokens(std::function<void(GgufBuilder*)> add) {
  TinyModel model;
  model.no_vocabulary = true;
  model.add = std::move(add);
  return BuildTinyModel(model).Build();
}

GgufBuilder& AddVocabulary(GgufBuilder* b, const std::vector<std::string>& tokens,
                           const std::vector<std::int32_t>& types) {
  return b->Add("tokenizer.ggml.model", "gpt2")
      .Add("tokenizer.ggml.pre", "qwen2")
      .Add("tokenizer.ggml.tokens", tokens)
      .Add("tokenizer.ggml.token_type", types)
      .Add("tokenizer.ggml.merges", std::vector<std::string>{});
}

const std::vector<std::string> kTokens = {"a", "b", "c", "d", "e", "f", "g", "h"};
const std::vector<std::int32_t> kNormal(8, 1);

// A1, A2, A3: counts, sizes and offsets of the header.
std::vector<Attack> HeaderAttacks() {
  return {
      {"antirez/ds4 PR #545: 24 bytes ask for 137 GB of keys", "metadata keys: the file claims",
       [] { return Head(0, Bit(32)); }},
      {"ollama #17032: 36 bytes with a key as long as memory", "metadata keys: the file claims 1",
       [] { return Head(0, 1) + BytesOf(Bit(40)) + "1234"; }},
      {"ollama PR #16136: 49 bytes kill the process with an array", "elements of metadata key 'k'",
       [] {
         return Head(0, 1) + StringBytes("k") + BytesOf(std::uint32_t{9}) +
                BytesOf(std::uint32_t{4}) + BytesOf(Bit(60));
       }},
      {"llama.cpp #27188: 43 bytes that a reader never finishes", "inside metadata key 'kkk'",
       [] {
         return Head(0, 1) + StringBytes("kkk") + BytesOf(std::uint32_t{9}) +
                BytesOf(std::uint32_t{9});
       }},
      {"ferrox #24: 24 bytes ask for 61 GB of tensors", "tensors: the file claims",
       [] { return Head(Bit(30), 0); }},
      {"CVE-2024-21836: the count of tensors times their size wraps", "tensors: the file claims",
       [] { return Head(Bit(60) + 1, 0) + std::string(256, '\0'); }},
      {"CVE-2024-23605: the count of keys times their size wraps", "metadata keys: the file claims",
       [] { return Head(0, Bit(59) + 1) + std::string(256, '\0'); }},
      {"CVE-2024-23496: the length of a string plus one wraps to zero",
       "claims 18446744073709551615 bytes",
       [] { return Head(0, 1) + BytesOf(UINT64_MAX) + std::string(64, 'k'); }},
      {"CVE-2024-21825: the count of an array of strings times 16 wraps",
       "elements of metadata key",
       [] {
         return Model("", [](GgufBuilder* b) {
           b->AddRaw("bad", 9, BytesOf(std::uint32_t{8}) + BytesOf(Bit(60) + 1));
         });
       }},
      {"CVE-2024-21802: more dimensions than the array that holds them",
       "'output_norm.weight' has 5 dimensions",
       [] {
         return ModelWithTensor({.name = "output_norm.weight", .dims = {1, 1, 1, 1, 8}});
       }},
      {"CVE-2024-21802: 2^32 - 1 dimensions", "has 4294967295 dimensions",
       [] {
         return ModelWithTensor(
             {.name = "output_norm.weight", .dims = {8}, .num_dims = UINT32_MAX});
       }},
      {"CVE-2025-53630: the sum of the tensors' sizes wraps", "'output_norm.weight'",
       [] { return ModelWithTensor({.name = "output_norm.weight", .dims = {Bit(61)}}); }},
      {"CVE-2026-27940: a size that wraps only when it is padded", "'output_norm.weight'",
       [] {
         return ModelWithTensor({.name = "output_norm.weight", .dims = {Bit(62) - 1}, .type = 1});
       }},
      {"CVE-2026-33298: exabytes by dimensions, megabytes by the wrapped product",
       "dimensions 4294967296 x 4294967296",
       [] {
         return ModelWithTensor({.name = "output_norm.weight", .dims = {Bit(32), Bit(32)}});
       }},
      {"llama.cpp #19856: the product wraps in quantised blocks", "'output_norm.weight'",
       [] {
         return ModelWithTensor(
             {.name = "output_norm.weight", .dims = {Bit(38), Bit(31)}, .type = 8});
       }},
      {"llama.cpp #26318: an offset that wraps when the size is added", "beyond the file",
       [] {
         return ModelWithTensor({.name = "output_norm.weight", .dims = {8}, .offset = 0 - Bit(5)});
       }},
      {"CVE-2026-7482: a tensor longer than the file, read from the heap behind it",
       "'output_norm.weight': its 4194304 bytes",
       [] { return ModelWithTensor({.name = "output_norm.weight", .dims = {Bit(20)}}); }},
      {"CVE-2026-7482: a tensor that begins behind the file", "beyond the file",
       [] {
         return ModelWithTensor({.name = "output_norm.weight", .dims = {8}, .offset = Bit(30)});
       }},
      {"CVE-2026-7482: two tensors over the same bytes", "overlap",
       [] {
         return ModelWithTensor({.name = "output_norm.weight",
                                 .dims = {8},
                                 .offset = 0,
                                 .bytes = std::string(32, '\0')});
       }},
      {"CVE-2025-47277, CVE-2024-50050: a pickle given as a model", "does not begin with 'GGUF'",
       [] { return std::string("\x80\x04\x95\x10") + std::string(7, '\0') + "cos\nsystem\n."; }},
      {"CVE-2025-32434: a zip of pickles given as a model", "does not begin with 'GGUF'",
       [] { return std::string("PK\x03\x04\x14") + std::string(25, '\0') + "archive/data.pkl"; }},
  };
}

// A4, A6: numbers of the model's shape.
std::vector<Attack> ShapeAttacks() {
  return {
      {"llama.cpp #25821: more layers than an array of 512 holds", "block_count' is 514",
       [] {
         TinyModel model;
         model.layers = 2;
         model.without = "block_count";
         model.add = [](GgufBuilder* b) { b->Add("qwen3moe.block_count", std::uint32_t{514}); };
         return BuildTinyModel(model).Build();
       }},
      {"llama.cpp #25821: 2^31 layers", "block_count",
       [] { return ModelWithNumber("block_count", Bit(31)); }},
      {"llama.cpp #25821: no layer", "block_count",
       [] { return ModelWithNumber("block_count", 0); }},
      {"llama.cpp #26946: a dimension of zero divides", "dimension 0 is zero",
       [] { return ModelWithTensor({.name = "output_norm.weight", .dims = {0}}); }},
      {"llama.cpp #26946: no head to divide by", "attention.head_count",
       [] { return ModelWithNumber("attention.head_count", 0); }},
      {"llama.cpp #26946: no KV head to divide by", "attention.head_count_kv",
       [] { return ModelWithNumber("attention.head_count_kv", 0); }},
      {"llama.cpp #26946: KV heads that do not divide the heads", "attention.head_count",
       [] { return ModelWithNumber("attention.head_count_kv", 3); }},
      {"llama.cpp #26946: more experts used than there are", "expert_used_count",
       [] { return ModelWithNumber("expert_used_count", 5); }},
      {"llama.cpp #26946: heads without a length", "attention.key_length",
       [] { return ModelWithNumber("attention.key_length", 0); }},
      {"CVE-2026-53923: 65 536 x 65 536 values are 0 in 32 bits", "token_embd.weight",
       [] {
         return ModelWithTensor({.name = "token_embd.weight", .dims = {65536, 65536}});
       }},
      {"vllm-gguf-plugin #79: rows that the embedding does not have", "'output.weight' is [8, 8]",
       [] {
         return ModelWithShape("token_embd.weight", {4, 8});
       }},
      {"vllm-gguf-plugin #127: an expert's stride of 2^32", "blk.0.ffn_gate_exps.weight",
       [] {
         return ModelWithTensor({.name = "blk.0.ffn_gate_exps.weight", .dims = {65536, 65536, 4}});
       }},
      {"vllm-gguf-plugin #127: fewer experts than the key says", "blk.1.ffn_down_exps.weight",
       [] {
         return ModelWithShape("blk.1.ffn_down_exps.weight", {3, 8, 6});
       }},
  };
}

// A5: the arrays of the tokenizer.
std::vector<Attack> TokenizerAttacks() {
  return {
      {"CVE-2025-49847: a token longer than 2^31 bytes", "tokenizer.ggml.tokens",
       [] {
         return ModelWithTokens([](GgufBuilder* b) {
           b->Add("tokenizer.ggml.model", "gpt2")
               .AddRaw(
                   "tokenizer.ggml.tokens", 9,
                   BytesOf(std::uint32_t{8}) + BytesOf(std::uint64_t{1}) + BytesOf(Bit(31) + 1));
         });
       }},
      {"CVE-2025-52566: more tokens than the embedding has rows", "tokenizer.ggml.tokens",
       [] {
         return ModelWithTokens([](GgufBuilder* b) {
           AddVocabulary(b, {"a", "b", "c", "d", "e", "f", "g", "h", "i"},
                         std::vector<std::int32_t>(9, 1));
         });
       }},
      {"llama.cpp #26690: tokens that are numbers", "tokenizer.ggml.tokens",
       [] {
         return ModelWithTokens([](GgufBuilder* b) {
           b->Add("tokenizer.ggml.model", "gpt2")
               .Add("tokenizer.ggml.pre", "qwen2")
               .Add("tokenizer.ggml.tokens", std::vector<std::uint8_t>(8, 1));
         });
       }},
      {"llama.cpp #26690: types that are strings", "tokenizer.ggml.token_type",
       [] {
         return ModelWithTokens([](GgufBuilder* b) {
           b->Add("tokenizer.ggml.model", "gpt2")
               .Add("tokenizer.ggml.pre", "qwen2")
               .Add("tokenizer.ggml.tokens", kTokens)
               .Add("tokenizer.ggml.token_type", kTokens);
         });
       }},
      {"llama.cpp #20735: fewer types than tokens", "tokenizer.ggml.token_type",
       [] {
         return ModelWithTokens(
             [](GgufBuilder* b) { AddVocabulary(b, kTokens, std::vector<std::int32_t>(7, 1)); });
       }},
      {"llama.cpp #27226: byte tokens, <0x-1> among them", "tokenizer.ggml.token_type[3] is 6",
       [] {
         return ModelWithTokens([](GgufBuilder* b) {
           std::vector<std::string> tokens = kTokens;
           tokens[3] = "<0x-1>";
           AddVocabulary(b, tokens, {1, 1, 1, 6, 1, 1, 1, 1});
         });
       }},
      {"llama.cpp #25969: a type of token that is none", "tokenizer.ggml.token_type[3] is -1",
       [] {
         return ModelWithTokens([](GgufBuilder* b) {
           AddVocabulary(b, kTokens, {1, 1, 1, -1, 1, 1, 1, 99});
         });
       }},
      {"llama.cpp #27226: an end of text that is no token", "tokenizer.ggml.eos_token_id",
       [] {
         return Model("", [](GgufBuilder* b) {
           b->Add("tokenizer.ggml.eos_token_id", std::uint32_t{4294967295});
         });
       }},
      {"llama.cpp #20735: a merge of tokens that are not there", "merge",
       [] {
         return ModelWithTokens([](GgufBuilder* b) {
           b->Add("tokenizer.ggml.model", "gpt2")
               .Add("tokenizer.ggml.pre", "qwen2")
               .Add("tokenizer.ggml.tokens", kTokens)
               .Add("tokenizer.ggml.token_type", kNormal)
               .Add("tokenizer.ggml.merges", std::vector<std::string>{"x y"});
         });
       }},
  };
}

std::int64_t PeakKilobytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

LoadOptions OptionsFor(const std::string& path) {
  LoadOptions options;
  options.path = path;
  options.context = 64;
  options.max_num_seqs = 1;
  options.threads = 1;
  return options;
}

// Slow machines under sanitizers too; an attack of this kind takes minutes or for ever.
constexpr std::chrono::seconds kQuickly{2};
// Above the peak so far, which loading a whole tiny model has set.
constexpr std::int64_t kFewKilobytes = std::int64_t{16} << 10;

void ExpectRefused(const Attack& attack) {
  SCOPED_TRACE(attack.id);
  const TempFile file(attack.bytes());
  const std::int64_t before = PeakKilobytes();
  const auto begin = std::chrono::steady_clock::now();
  const auto model = LoadModel(OptionsFor(file.path()));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kQuickly);
  EXPECT_LT(PeakKilobytes() - before, kFewKilobytes);
  ASSERT_FALSE(model.ok());
  const std::string message(model.status().message());
  EXPECT_THAT(message, HasSubstr(attack.says));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(KnownAttacks, TheModelThatTheyAreMadeFromLoads) {
  const TempFile file(BuildTinyModel({}).Build());
  const auto model = LoadModel(OptionsFor(file.path()));
  EXPECT_TRUE(model.ok()) << model.status();
}

TEST(KnownAttacks, OnTheHeaderAreRefused) {
  for (const Attack& attack : HeaderAttacks()) ExpectRefused(attack);
}

TEST(KnownAttacks, OnTheShapeAreRefused) {
  for (const Attack& attack : ShapeAttacks()) ExpectRefused(attack);
}

TEST(KnownAttacks, OnTheTokenizerAreRefused) {
  for (const Attack& attack : TokenizerAttacks()) ExpectRefused(attack);
}

struct TemplateAttack {
  const char* id;
  const char* source;
};

// A7: the chat template of a file is a program. The model loads; running the template is refused,
// or finds nothing there to show.
const TemplateAttack kTemplates[] = {
    {"CVE-2024-34359: out of the sandbox by the classes of a string",
     "{% for c in ''.__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}"},
    {"CVE-2024-34359: out of the sandbox by a global of the language",
     "{{ cycler.__init__.__globals__.os.popen('id').read() }}"},
    {"CVE-2024-34359: out of the sandbox by a macro's function",
     "{% macro m() %}{% endmacro %}{{ m.__globals__ }}"},
    {"CVE-2026-5760: out of the sandbox by attr and lipsum",
     "{{ lipsum|attr('__globals__')|attr('get')('os') }}"},
    {"CVE-2026-5760: another file taken in", "{% include '/etc/passwd' %}"},
    {"CVE-2025-62426: a loop that never ends in a lifetime",
     "{% for a in range(1000000) %}{% for b in range(1000000) %}x{% endfor %}{% endfor %}"},
    {"CVE-2025-61620: a string doubled until memory is gone",
     "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(64) %}"
     "{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}"},
    {"CVE-2025-61620: a macro that calls itself",
     "{% macro m(x) %}{{ m(x) }}{{ m(x) }}{% endmacro %}{{ m(1) }}"},
};

TEST(KnownAttacks, OnTheChatTemplateReachNothing) {
  for (const TemplateAttack& attack : kTemplates) {
    SCOPED_TRACE(attack.id);
    const TempFile file(
        Model("", [&](GgufBuilder* b) { b->Add("tokenizer.chat_template", attack.source); }));
    const auto model = LoadModel(OptionsFor(file.path()));
    ASSERT_TRUE(model.ok()) << model.status();
    const auto begin = std::chrono::steady_clock::now();
    const auto parsed = ChatTemplate::Parse(model->chat_template, "", "");
    if (parsed.ok()) {
      ChatInput input;
      input.messages.push_back({.role = "user", .content = "hi"});
      const auto rendered = (*parsed)->Render(input);
      EXPECT_TRUE(!rendered.ok() || rendered->text().empty()) << rendered->text().substr(0, 80);
      EXPECT_EQ(std::string(rendered.status().message()).find('\n'), std::string::npos);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, kQuickly);
  }
}

}  // namespace
}  // namespace millrace::testing
